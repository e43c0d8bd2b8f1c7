"""Normal training: the step of the check over a whole dataset, with validation and checkpoints."""
