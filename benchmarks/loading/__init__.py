"""`vaefit-cli bench loader`: the speed of the loaders."""
