"""Test of the diagnosis: runs that fail for a known cause, and runs that pass."""
