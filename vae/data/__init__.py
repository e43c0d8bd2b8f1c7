"""Datasets of grids: the synthetic corpus, the ARC import, and the HDF5 file that both write."""
