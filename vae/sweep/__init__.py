"""A grid of settings over seeds: the runs, what they came to, and which knob made the difference."""
