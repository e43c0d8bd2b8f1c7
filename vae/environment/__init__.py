"""The machine a run uses: device, threads, memory, seeds, versions."""
