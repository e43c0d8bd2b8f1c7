"""Diagnosis of a failed run: probes of the model, then short reruns with one change each."""
