"""Runs that fail for a known cause, and healthy ones: what the diagnosis is held against."""
