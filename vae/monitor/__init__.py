"""Monitor of a training loop: warnings about classes, output collapse and the loss."""
