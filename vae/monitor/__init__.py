"""The monitor of a training loop: dead classes, collapsed output, non-finite losses."""
