"""Effect of each knob of a sweep: an analysis of variance of ranks, and the sentence that names the largest."""

from __future__ import annotations

import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from .outcome import Effect, SettingOutcome, SweepRun
from .plan import Knob

SEEDS = "seeds"
TOGETHER = "combinations and chance"
NOISE = 1e-9
"""Smallest mean square of the rest, as a share of the whole: less is rounding."""
CLEAR = 4.0
"""A knob with an effect of so many times chance is named. A knob of two values without any effect is named in 19 % of
sweeps over three seeds, in 12 % over five and in 6 % over twelve (400 random sweeps each)."""

MANY = 1000


def effects(
    scores: Sequence[tuple[float, ...]], values: Sequence[tuple[str, ...]], numbers: Sequence[int], knobs: Sequence[str]
) -> tuple[Effect, ...]:
    """Split the variance of the ranks of the runs by knobs and seeds; the largest share is first.

    Analysis of variance of a full grid in which every setting has the same seeds, so that the parts add up. It takes
    ranks (Conover and Iman 1981, "Rank transformations as a bridge between parametric and nonparametric statistics"),
    because "never" is no number. The rest holds the combinations of knobs, and chance.

    Args:
        scores: of each run; larger is better.
        values: of each run, the value of each knob.
        numbers: of each run, the number of its seeds.
        knobs: their names.

    Returns an empty tuple where all runs have the same score.
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
    """Return ranks from 0; equal scores share the mean of their ranks."""
    order = sorted(scores)
    # the first and the last place of a score in the order
    return np.array([(bisect_left(order, score) + bisect_right(order, score) - 1) / 2 for score in scores])


def _between(ranks: NDArray[np.float64], groups: Sequence[Hashable]) -> float:
    """Return the sum of squares between groups."""
    mean = ranks.mean()
    found = 0.0
    for group in dict.fromkeys(groups):
        members = ranks[[g == group for g in groups]]
        found += members.size * float((members.mean() - mean) ** 2)
    return found


def difference(effects: Sequence[Effect], knobs: Sequence[Knob], runs: Sequence[SweepRun]) -> str:
    """Name the knob that explains most, if it explains more than chance and combinations; else say that none does."""
    varied = [knob for knob in knobs if len(knob.values) > 1]
    if not varied:
        return "no knob was varied"
    if not effects:
        return "nothing made a difference: all runs came out alike"
    found = {effect.source: effect for effect in effects}
    best = max(varied, key=lambda knob: found[knob.name].share)
    ratio = found[best.name].ratio
    if ratio is None:
        return f"one run a value cannot be told from chance, try --seeds 3: {_by_value(best, knobs, runs)}"
    if ratio >= CLEAR:
        times = f"{ratio:.0f}" if ratio < MANY else f"over {MANY}"
        return f"{best.name} made the difference, {times} times chance: {_by_value(best, knobs, runs)}"
    shares = f"{best.name} explains {_percent(found[best.name])}, {TOGETHER} {_percent(found[TOGETHER])}"
    return f"no knob made a clear difference by itself: {shares}"


def _by_value(knob: Knob, knobs: Sequence[Knob], runs: Sequence[SweepRun]) -> str:
    """Compare the values of a knob by runs that memorised or, where these are equal, by updates or by skill."""
    place = [k.name for k in knobs].index(knob.name)
    groups = {value: [run for run in runs if run.values[place] == value] for value in knob.values}
    outcomes = {value: SettingOutcome.from_runs(members) for value, members in groups.items()}
    shares = {outcome.memorised / outcome.runs for outcome in outcomes.values()}
    if len(shares) > 1:
        return "MEMORISED " + ", ".join(f"{o.memorised}/{o.runs} with {value}" for value, o in outcomes.items())
    if shares == {0.0}:
        medians = {value: statistics.median(run.progress for run in members) for value, members in groups.items()}
        return "skill " + ", ".join(f"{median:.3f} with {value}" for value, median in medians.items())
    steps = {value: o.exact.median for value, o in outcomes.items()}
    words = (f"{'never' if step is None else f'{step:g}'} with {value}" for value, step in steps.items())
    return "updates until every cell is right " + ", ".join(words)


def _percent(effect: Effect) -> str:
    return f"{100 * effect.share:.0f} %"
