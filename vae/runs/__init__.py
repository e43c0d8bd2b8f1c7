"""Whole commands as functions: overfit, train, resume, evaluate, sample, self-test."""
