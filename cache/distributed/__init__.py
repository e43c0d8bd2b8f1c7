"""Counts of one dataset, made by several processes."""
