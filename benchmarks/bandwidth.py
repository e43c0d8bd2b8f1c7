"""What the memory of this machine gives: a large copy, in the same process and on the same threads."""

from __future__ import annotations

import statistics

import torch

from .clock import Clock

CPU_BYTES = 256 << 20
GPU_BYTES = 1 << 30
SAMPLES = 7


def copy_bandwidth(device: torch.device, clock: Clock) -> float:
    """Bytes a second of copying a tensor beyond the cache, read and written bytes both counted."""
    source = torch.ones(GPU_BYTES if device.type == "cuda" else CPU_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    seconds = [clock.sample(target.copy_, [source]) for _ in range(SAMPLES)]
    return 2 * source.nbytes / statistics.median(seconds)
