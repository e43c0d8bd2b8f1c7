"""Accuracies, skill, retrieval, the verdict, and the advice that follows from them."""
