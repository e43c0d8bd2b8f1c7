"""`vaefit-cli bench histogram`: the speed of counting, against common alternatives."""
