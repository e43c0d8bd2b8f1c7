"""What the runs of a sweep came to, run by run and setting by setting."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..metrics.verdict import Verdict
from ..results.json_values import plain
from .plan import Knob
from .rank_anova import Effect

if TYPE_CHECKING:
    from ..fitting.result import OverfitRun


@dataclass(frozen=True)
class SweepRun:
    """One run; a row of `sweep.csv`."""

    values: tuple[str, ...]
    """The value of each knob."""
    number: int
    """Which of the seeds, from 0."""
    seed: int
    batch_seed: int
    verdict: Verdict
    iterations: int
    pixel_95: int | None
    worst_class_95: int | None
    exact: int | None
    pixel_accuracy: float
    macro_accuracy: float
    worst_class_accuracy: float
    skill: float | None
    retrieval: float | None
    seconds: float
    folder: str
    """The run's folder, by its name inside the sweep's."""

    @classmethod
    def from_run(cls, values: tuple[str, ...], number: int, check: OverfitRun) -> SweepRun:
        """Take what a sweep keeps of a finished check."""
        result, accuracies = check.result, check.result.accuracies
        return cls(
            values=values,
            number=number,
            seed=check.settings.seed,
            batch_seed=check.settings.batch_seed,
            verdict=result.verdict,
            iterations=result.iterations,
            **asdict(result.reached),
            pixel_accuracy=accuracies.pixel,
            macro_accuracy=accuracies.macro,
            worst_class_accuracy=accuracies.worst,
            skill=result.skill,
            retrieval=result.retrieval,
            seconds=check.seconds,
            folder=check.run_dir.name,
        )

    @property
    def progress(self) -> float:
        """Skill, or the pixel accuracy where one picture answers every grid."""
        return self.pixel_accuracy if self.skill is None else self.skill

    @property
    def score(self) -> tuple[float, ...]:
        """What orders runs from worse to better: DIVERGED, failed by their progress, MEMORISED by their updates."""
        if self.verdict == "DIVERGED":
            return (0.0, 0.0, 0.0)
        if self.verdict != "MEMORISED":
            return (1.0, self.progress, self.worst_class_accuracy)
        return (2.0, -_steps(self.exact), -_steps(self.worst_class_95))


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest; None stands for "never", which is more than any number of updates."""

    median: float | None
    low: float | None
    high: float | None

    @classmethod
    def from_values(cls, values: Sequence[float | None]) -> Spread:
        """Take them of at least one value."""
        numbers = [_steps(value) for value in values]
        found = (statistics.median(numbers), min(numbers), max(numbers))
        return cls(*(number if math.isfinite(number) else None for number in found))


@dataclass(frozen=True)
class SettingOutcome:
    """The runs of one setting, put together."""

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
        """Put runs of the same values together."""
        verdicts = [run.verdict for run in runs]
        return cls(
            values=runs[0].values,
            runs=len(runs),
            memorised=verdicts.count("MEMORISED"),
            verdicts={verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))},
            pixel_95=Spread.from_values([run.pixel_95 for run in runs]),
            worst_class_95=Spread.from_values([run.worst_class_95 for run in runs]),
            exact=Spread.from_values([run.exact for run in runs]),
            worst_class_accuracy=Spread.from_values([run.worst_class_accuracy for run in runs]),
        )


@dataclass(frozen=True)
class SweepOutcome:
    """A finished sweep; what `sweep.json` holds."""

    knobs: tuple[Knob, ...]
    seeds: int
    settings: tuple[SettingOutcome, ...]
    effects: tuple[Effect, ...]
    """How much of the differences between the runs each knob explains, the largest first."""
    difference: str
    """Which knob made the difference, in words."""
    runs: tuple[SweepRun, ...]
    seconds: float
    run_dir: str

    def json(self) -> dict[str, Any]:
        """What `sweep --json` prints."""
        found: dict[str, Any] = plain(asdict(self))
        return found


def _steps(value: float | None) -> float:
    return math.inf if value is None else float(value)
