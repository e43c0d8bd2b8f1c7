"""Sweep: a grid of settings over seeds, and the knob that made the difference."""
