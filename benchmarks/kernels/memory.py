"""Peak memory of a call beside its inputs, its results included."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Return the peak bytes above those held before the call; on the CPU the same every time.

    On a GPU the caching allocator keeps the tally. On the CPU the profiler reports every allocation of torch's
    allocator, those inside operators and in compiled code too, which a dispatch mode would not see; what C++ code puts
    on its own stack or heap is not in it.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        kept = call()
        torch.cuda.synchronize()
        del kept
        return torch.cuda.max_memory_allocated() - before
    # from 6 on it does not announce itself on stderr
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        kept = call()
        del kept
    return _peak(profiled.profiler)


def _peak(profiler: Any) -> int:
    """Return the highest sum of the allocations and releases in order of time."""
    records = [event for event in profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for record in sorted(records, key=lambda record: int(record.start_ns())):
        held += record.nbytes()
        peak = max(peak, held)
    return peak


def out_of_memory(error: Exception) -> bool:
    """True for each of the three errors that torch raises when memory is full."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)
