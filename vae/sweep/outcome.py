"""Results of a sweep: of each run, of each setting, and the effects of the knobs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..fitting.result import OverfitRun
from ..metrics.verdict import Verdict
from ..results.json_values import record_values
from ..results.overfit_summary import RunSummary
from .plan import Knob


@dataclass(frozen=True)
class SweepRun:
    """A run of the sweep: a row of `sweep.csv`."""

    values: tuple[str, ...]
    """The value of each knob."""
    number: int
    """Number of its seeds, from 0."""
    seed: int
    batch_seed: int
    verdict: Verdict | Literal["ERROR"]
    iterations: int = 0
    pixel_95: int | None = None
    worst_class_95: int | None = None
    exact: int | None = None
    pixel_accuracy: float | None = None
    """None where the run ended with an error, like the next two."""
    macro_accuracy: float | None = None
    worst_class_accuracy: float | None = None
    skill: float | None = None
    retrieval: float | None = None
    seconds: float = 0.0
    folder: str = ""
    """Name of its folder in that of the sweep; empty where it ended with an error."""
    error: str | None = None
    variation: float | None = None
    """None also in a sweep by an older version."""

    @classmethod
    def from_run(cls, values: tuple[str, ...], number: int, run: OverfitRun) -> SweepRun:
        """Take the fields from the result of a run."""
        import msgspec

        result, settings = RunSummary.from_run(run).json(), run.settings
        own = {"values": values, "number": number, "seed": settings.seed, "batch_seed": settings.batch_seed}
        return msgspec.convert({**result, **result["reached"], **own, "folder": run.run_dir.name}, cls)

    @property
    def progress(self) -> float:
        """Skill, or the pixel accuracy where one picture is right for every grid."""
        return self.pixel_accuracy or 0.0 if self.skill is None else self.skill

    @property
    def score(self) -> tuple[float, ...]:
        """Order of runs from worse to better: ERROR, DIVERGED, failed by their progress, MEMORISED by their updates."""
        if self.verdict in ("ERROR", "DIVERGED"):
            return (-1.0 if self.verdict == "ERROR" else 0.0, 0.0, 0.0)
        if self.verdict != "MEMORISED":
            return (1.0, self.progress, self.worst_class_accuracy or 0.0)
        return (2.0, -_steps(self.exact), -_steps(self.worst_class_95))


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest value; None stands for "never", which is more than any number of updates."""

    median: float | None
    low: float | None
    high: float | None

    @classmethod
    def from_values(cls, values: Sequence[float | None]) -> Spread:
        """Take them from at least one value."""
        numbers = [_steps(value) for value in values]
        found = (statistics.median(numbers), min(numbers), max(numbers))
        return cls(*(number if math.isfinite(number) else None for number in found))


@dataclass(frozen=True)
class SettingOutcome:
    """The runs of one setting in summary."""

    values: tuple[str, ...]
    runs: int
    memorised: int
    verdicts: dict[str, int]
    pixel_95: Spread
    worst_class_95: Spread
    exact: Spread
    worst_class_accuracy: Spread

    @classmethod
    def from_runs(cls, runs: Sequence[SweepRun]) -> SettingOutcome:
        """Summarise runs with the same values of the knobs."""
        verdicts = [run.verdict for run in runs]
        return cls(
            values=runs[0].values,
            runs=len(runs),
            memorised=verdicts.count("MEMORISED"),
            verdicts={verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))},
            pixel_95=Spread.from_values([run.pixel_95 for run in runs]),
            worst_class_95=Spread.from_values([run.worst_class_95 for run in runs]),
            exact=Spread.from_values([run.exact for run in runs]),
            worst_class_accuracy=Spread.from_values(
                [run.worst_class_accuracy for run in runs if not run.error] or [None]
            ),
        )


@dataclass(frozen=True)
class Effect:
    """Share of the differences between the runs that a knob, the seeds, or the rest explains."""

    source: str
    share: float
    """0..1; the shares of all sources add up to 1."""
    ratio: float | None
    """Mean square over that of the rest, the F of an analysis of variance; None where the rest has no freedom."""


@dataclass(frozen=True)
class SweepOutcome:
    """A sweep that ended, as `sweep.json` holds it."""

    knobs: tuple[Knob, ...]
    seeds: int
    settings: tuple[SettingOutcome, ...]
    effects: tuple[Effect, ...]
    """The largest share first."""
    difference: str
    """The knob that made the difference, in words."""
    runs: tuple[SweepRun, ...]
    seconds: float
    run_dir: str
    interrupted: bool = False
    """It was stopped before its end: `runs` holds those that ended before, and there are no effects."""

    def json(self) -> dict[str, Any]:
        """Return what `sweep --json` prints."""
        return record_values(self)


def _steps(value: float | None) -> float:
    return math.inf if value is None else float(value)
