"""`vaefit-cli bench loader`: grids per second of the loaders."""
