"""Optimisers (Adam, Muon) and the training step."""
