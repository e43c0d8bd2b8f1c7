"""How long calls take: CPU time of the process, wall time, or events on the GPU's own stream."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import torch

T = TypeVar("T")

LEAST_SECONDS = 0.02
"""A sample on the CPU repeats short calls for so long."""
MOST_CALLS = 2000
GPU_CALLS = 32
"""Calls in a sample on a GPU: enough for a median, few enough for the queue of launches."""
SPINS_A_SECOND = 2e9
"""Cycles that a GPU's clock makes at most in a second."""


class Clock(Protocol):
    """One way to time calls."""

    name: str

    def calls(self, seconds: float, sets: int) -> int:
        """How many calls make one sample, where one takes about `seconds` and there are `sets` inputs."""

    def sample(self, call: Callable[[T], object], block: Sequence[T]) -> float:
        """Seconds of a call, over one call for each entry of `block`; what `call` returns is thrown away."""

    def host(self, call: Callable[[T], object], block: Sequence[T]) -> float | None:
        """Seconds that the host spends on a call without waiting for the device; None where it is the device."""


class CpuClock:
    """CPU time of the process on one thread: another process on the same machine does not lengthen it.

    With more threads it is wall time, since their CPU times added up would hide what they gain.
    """

    def __init__(self, threads: int) -> None:
        self.name = "CPU time" if threads == 1 else "wall time"
        self._now = time.process_time if threads == 1 else time.perf_counter

    def calls(self, seconds: float, sets: int) -> int:
        """As many as fill `LEAST_SECONDS`."""
        return min(MOST_CALLS, max(1, math.ceil(LEAST_SECONDS / max(seconds, 1e-9))))

    def sample(self, call: Callable[[T], object], block: Sequence[T]) -> float:
        """The mean over the block."""
        start = self._now()
        for argument in block:
            call(argument)
        return (self._now() - start) / len(block)

    def host(self, call: Callable[[T], object], block: Sequence[T]) -> float | None:
        """None."""
        return None


class CudaClock:
    """Time between two events around each call, on the current stream of a CUDA or ROCm device.

    The device is kept busy until the host has launched the whole call, so that launching does not show; where a call
    itself waits for the device, it does. What the host spends is measured apart.
    """

    name = "GPU time"

    def calls(self, seconds: float, sets: int) -> int:
        """`GPU_CALLS`, however long they take, but no input twice in a sample: some calls write over it."""
        return min(GPU_CALLS, sets)

    def sample(self, call: Callable[[T], object], block: Sequence[T]) -> float:
        """The median over the block."""
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
        """The mean over the block, after the device has caught up."""
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
    """The clock of a device."""
    return CudaClock() if device.type == "cuda" else CpuClock(threads)


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
