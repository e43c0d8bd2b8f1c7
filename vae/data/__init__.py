"""Datasets of grids and what a run takes from them: corpora, imports, the HDF5 writer, the batch, class weights."""
