"""Clocks: CPU time of the process, wall time, or events on the GPU's stream."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import torch

T = TypeVar("T")

LEAST_SECONDS = 0.02
"""Least duration of a sample on the CPU, which repeats short calls."""
MOST_CALLS = 2000
GPU_CALLS = 32
"""Calls in a sample on a GPU: enough for a median, few enough for the queue of launches."""
SPINS_A_SECOND = 2e9
"""Cycles that a GPU's clock makes at most in a second."""


class Clock(Protocol):
    """Interface of a clock."""

    name: str

    def calls(self, seconds: float, sets: int) -> int:
        """Return the number of calls in a sample, for calls of about `seconds` and `sets` different inputs."""

    def sample(self, call: Callable[[T], object], block: Sequence[T]) -> float:
        """Return the seconds of a call, over one call for each entry of `block`; results are thrown away."""

    def host(self, call: Callable[[T], object], block: Sequence[T]) -> float | None:
        """Return the seconds that the host spends on a call without waiting; None where the host is the device."""


class CpuClock:
    """CPU time of the process on one thread: another process on the same machine does not lengthen it.

    With more threads it is wall time, since their CPU times added up would hide what they gain.
    """

    def __init__(self, threads: int) -> None:
        self.name = "CPU time" if threads == 1 else "wall time"
        self._now = time.process_time if threads == 1 else time.perf_counter

    def calls(self, seconds: float, sets: int) -> int:
        """Return the number that fills `LEAST_SECONDS`."""
        return min(MOST_CALLS, max(1, math.ceil(LEAST_SECONDS / max(seconds, 1e-9))))

    def sample(self, call: Callable[[T], object], block: Sequence[T]) -> float:
        """Return the mean over the block."""
        start = self._now()
        for argument in block:
            call(argument)
        return (self._now() - start) / len(block)

    def host(self, call: Callable[[T], object], block: Sequence[T]) -> float | None:
        """Return None."""
        return None


class CudaClock:
    """Time between two events around each call, on the current stream of a CUDA or ROCm device.

    The device is kept busy until the host has launched the whole call, so that launching does not show; where a call
    itself waits for the device, it does. What the host spends is measured apart.
    """

    name = "GPU time"

    def calls(self, seconds: float, sets: int) -> int:
        """Return `GPU_CALLS`, but at most one call for each input: some calls overwrite it."""
        return min(GPU_CALLS, sets)

    def sample(self, call: Callable[[T], object], block: Sequence[T]) -> float:
        """Return the median over the block."""
        # what the first call may write over its input changes no time
        ahead = int(2 * SPINS_A_SECOND * self.host(call, block[:1]))
        events = [(_event(), _event()) for _ in block]
        for (start, end), argument in zip(events, block, strict=True):
            torch.cuda._sleep(ahead)  # type: ignore[no-untyped-call]
            start.record()
            call(argument)
            end.record()
        torch.cuda.synchronize()
        return float(torch.tensor([start.elapsed_time(end) for start, end in events]).median()) / 1e3

    def host(self, call: Callable[[T], object], block: Sequence[T]) -> float:
        """Return the mean over the block, after the device has finished earlier work."""
        torch.cuda.synchronize()
        start = time.perf_counter()
        for argument in block:
            call(argument)
        spent = time.perf_counter() - start
        torch.cuda.synchronize()
        return spent / len(block)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def clock_for(device: torch.device, threads: int) -> Clock:
    """Return the clock of a device."""
    return CudaClock() if device.type == "cuda" else CpuClock(threads)


CPU_BYTES = 256 << 20
GPU_BYTES = 1 << 30
SAMPLES = 7


def copy_bandwidth(device: torch.device, clock: Clock) -> float:
    """Return the bytes a second, read and written, of copying a tensor larger than the cache."""
    source = torch.ones(GPU_BYTES if device.type == "cuda" else CPU_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    seconds = [clock.sample(target.copy_, [source]) for _ in range(SAMPLES)]
    return 2 * source.nbytes / statistics.median(seconds)
