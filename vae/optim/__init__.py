"""Optimizers (Adam, Muon) and the training step."""
