"""`vaefit-cli bench kernels`: parity, time and memory of the loss and the counts."""
