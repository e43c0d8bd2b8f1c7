"""`vaefit-cli bench step`: the cost of one step of the check."""
