"""Several processes on one run, by torch.distributed; imported by a process that torchrun started, and by no other."""
