"""Environment of a run: device, threads, determinism, machine and versions."""
