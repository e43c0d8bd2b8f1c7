"""Run folders: writing, reading and comparing them."""
