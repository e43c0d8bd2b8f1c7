"""HDF5 datasets: open and check them, read blocks, read single grids."""
