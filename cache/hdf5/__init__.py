"""HDF5 datasets: opening and checking, reading in blocks, reading single grids."""
