"""Accuracies, skill, retrieval, the verdict, and the advice after a failed run."""
