"""The fit of one fixed batch: steppers, loop, learning-rate range test, result."""
