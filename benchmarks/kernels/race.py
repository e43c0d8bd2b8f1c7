"""Timing of one operation, ours and every peer in turns."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .clock import Clock
from .inputs import Contestant, Inputs, Op
from .memory import peak_bytes


@dataclass(frozen=True)
class Timing:
    """Time and memory of one contestant for one operation."""

    median_us: float
    low_us: float
    high_us: float
    """Quartiles of the samples."""
    host_us: float | None
    """Time that the host spends on a call; None where the host is the device."""
    peak_bytes: int
    """The most memory held beside the inputs."""


def race(
    contestants: Sequence[Contestant], op: Op, sets: Sequence[Inputs], clock: Clock, rounds: int
) -> dict[str, Timing]:
    """Time each contestant once a round, in an order that shifts from round to round; calls go through the inputs.

    Each must have been called before, so that nothing is compiled here. The memory of a call is taken apart from its
    time.
    """
    device = sets[0].logits.device
    turns = {contestant.name: itertools.cycle(sets) for contestant in contestants}
    peaks = {c.name: _peak(c, op, sets[0], device) for c in contestants}
    calls = {c.name: clock.calls(_once(c, op, sets[0], clock), len(sets)) for c in contestants}
    samples: dict[str, list[float]] = {c.name: [] for c in contestants}
    host: dict[str, list[float | None]] = {c.name: [] for c in contestants}
    for number in range(rounds):
        for place in range(len(contestants)):
            contestant = contestants[(number + place) % len(contestants)]
            name = contestant.name
            block = [contestant.prepare(inputs) for inputs in itertools.islice(turns[name], calls[name])]
            call = _call(contestant, op)
            samples[name].append(clock.sample(call, block))
            host[name].append(clock.host(call, block))
    return {name: _timing(seconds, host[name], peaks[name]) for name, seconds in samples.items()}


def _call(contestant: Contestant, op: Op) -> Callable[[Inputs], object]:
    return lambda inputs: contestant.call(inputs, op)


def _once(contestant: Contestant, op: Op, inputs: Inputs, clock: Clock) -> float:
    """Return the rough seconds of one call."""
    return clock.sample(_call(contestant, op), [contestant.prepare(inputs)])


def _peak(contestant: Contestant, op: Op, inputs: Inputs, device: torch.device) -> int:
    prepared = contestant.prepare(inputs)
    return peak_bytes(lambda: contestant.call(prepared, op), device)


def _timing(seconds: Sequence[float], host: Sequence[float | None], peak: int) -> Timing:
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else 3 * [*seconds]
    spent = [value for value in host if value is not None]
    return Timing(1e6 * median, 1e6 * low, 1e6 * high, 1e6 * statistics.median(spent) if spent else None, peak)
