"""Measurements of the kernels and of the step against their peers: parity first, then time."""
