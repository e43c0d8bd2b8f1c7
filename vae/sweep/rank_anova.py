"""Which knob made the difference: the variance of the runs' ranks, split by knobs and seeds."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SEEDS = "seeds"
TOGETHER = "combinations and chance"
NOISE = 1e-9
"""What rounding leaves of a rest that is nothing, as a share of the whole."""


@dataclass(frozen=True)
class Effect:
    """A knob, `seeds`, or what neither explains, and how much of the differences between the runs it explains."""

    source: str
    share: float
    """0..1; the shares of all sources add up to 1."""
    ratio: float | None
    """Its mean square over that of the rest, the F of an analysis of variance; None where that has no rest left."""


def effects(
    scores: Sequence[tuple[float, ...]], values: Sequence[tuple[str, ...]], numbers: Sequence[int], knobs: Sequence[str]
) -> tuple[Effect, ...]:
    """Split the variance of the runs' ranks, the largest share first; empty where all runs are of one rank.

    The analysis of variance of a full grid in which every setting has the same seeds, so that the parts add up. It is
    taken of ranks (Conover and Iman 1981, "Rank transformations as a bridge between parametric and nonparametric
    statistics"), for "never" is no number. What is left after the knobs and the seeds is what knobs do together, and
    chance.

    Args:
        scores: a run's outcome; larger is better.
        values: a run's value of each knob.
        numbers: which of the seeds a run had.
        knobs: the names of the knobs.
    """
    ranks = _ranks(scores)
    total = float(((ranks - ranks.mean()) ** 2).sum())
    if total == 0:
        return ()
    groups: dict[str, list[Hashable]] = {knob: [v[place] for v in values] for place, knob in enumerate(knobs)}
    groups[SEEDS] = list(numbers)
    squares = {source: _between(ranks, members) for source, members in groups.items()}
    freedom = {source: len(set(members)) - 1 for source, members in groups.items()}
    rest = max(0.0, total - sum(squares.values()))
    rest_freedom = len(ranks) - 1 - sum(freedom.values())

    def ratio(source: str) -> float | None:
        if rest_freedom == 0 or freedom[source] == 0:
            return None
        chance = rest / rest_freedom
        return squares[source] / freedom[source] / max(chance, NOISE * total)

    found = [Effect(source, part / total, ratio(source)) for source, part in squares.items()]
    found.append(Effect(TOGETHER, rest / total, None))
    return tuple(sorted(found, key=lambda effect: -effect.share))


def _ranks(scores: Sequence[tuple[float, ...]]) -> NDArray[np.float64]:
    """Ranks from 0; equal scores share the mean of their ranks."""
    order = sorted(scores)
    first: dict[tuple[float, ...], int] = {}
    count: dict[tuple[float, ...], int] = {}
    for place, score in enumerate(order):
        first.setdefault(score, place)
        count[score] = count.get(score, 0) + 1
    return np.array([first[score] + (count[score] - 1) / 2 for score in scores])


def _between(ranks: NDArray[np.float64], groups: Sequence[Hashable]) -> float:
    """Sum of squares between groups."""
    mean = ranks.mean()
    found = 0.0
    for group in dict.fromkeys(groups):
        members = ranks[[g == group for g in groups]]
        found += members.size * float((members.mean() - mean) ** 2)
    return found
