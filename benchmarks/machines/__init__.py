"""What several machines would cost: parts of the work measured on one, and the arithmetic that goes from there."""
