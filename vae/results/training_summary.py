"""The result of a training run as plain values: what `result.json` holds, what is printed, and what is read again."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..objective.preflight import Agreement
from .json_values import plain
from .overfit_summary import DatasetSummary, WeightsSummary

KIND = "train"
FORMAT = 1
"""Of a training run's folder and its checkpoints; a run of another one is not resumed."""
METRICS = "metrics.csv"
UNUSED = ("iterations", "resample", "stop_when", "target")
"""Knobs of a recipe that mean nothing in training: its length follows from the epochs, and it judges no batch."""

if TYPE_CHECKING:
    from ..training.prepare import PreparedTraining
    from ..training.progress import Progress
    from ..training.validation import Validation


@dataclass(frozen=True)
class TrainingSetup:
    """What is known of a training run before its first update."""

    dataset: DatasetSummary
    weights: WeightsSummary
    split: dict[str, int]
    """Grids for training, validation and test."""
    split_reason: str
    backend: str
    backend_reason: str
    device: str
    model: str
    """Class and size, in words."""
    adapter: str
    loader: str
    """How batches come about."""
    batch_size: int
    epochs: int
    updates: int
    """Planned."""
    updates_an_epoch: int
    preflight: Agreement | None
    lr: float
    lr_reason: str | None
    """How a range test chose it; None where it was given."""
    ranks: int = 1
    """Processes that train together."""


@dataclass(frozen=True)
class HistoryRow:
    """One validation, as `metrics.csv` has it."""

    step: int
    epoch: int
    train_loss: float | None
    train_pixel_accuracy: float | None
    train_macro_accuracy: float | None
    loss: float | None
    kl: float | None
    pixel_accuracy: float
    macro_accuracy: float
    worst_class_accuracy: float
    skill: float | None


@dataclass(frozen=True)
class TrainSummary:
    """A training run that came to its end; its metrics are those of the best validation, by macro accuracy."""

    kind: str
    format: int
    finished: bool
    """Not where it diverged."""
    diverged: str | None
    stopped: str | None
    """Why it ended before its last update."""
    iterations: int
    """Updates done."""
    best_step: int
    best_epoch: int
    pixel_accuracy: float
    macro_accuracy: float
    worst_class_accuracy: float
    worst_class: int
    class_accuracy: tuple[float | None, ...]
    confusion: tuple[tuple[int, ...], ...]
    background_share: float
    majority_share: float
    skill: float | None
    loss: float | None
    focal: float | None
    kl: float | None
    kl_dimensions: tuple[float, ...] | None
    active_dimensions: int | None
    history: tuple[HistoryRow, ...]
    warnings: tuple[str, ...]
    setup: TrainingSetup
    seconds: float
    run_dir: str

    def json(self) -> dict[str, Any]:
        """What `train --json` prints; the setup's parts stand beside the results."""
        found: dict[str, Any] = plain(asdict(self))
        setup, where = found.pop("setup"), found.pop("run_dir")
        return {**found, **setup, "run_dir": where}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> TrainSummary:
        """Take what `json` gave apart; msgspec.ValidationError, which names the key, where it does not fit."""
        import msgspec

        parts = TrainingSetup.__dataclass_fields__
        setup = {key: value for key, value in found.items() if key in parts}
        return msgspec.convert({**found, "setup": setup}, cls)


@dataclass(frozen=True)
class TrainedRun:
    """What a training run has come to."""

    prepared: PreparedTraining
    setup: TrainingSetup
    progress: Progress
    validation: Validation
    """Of the best weights."""

    def summary(self, folder: Path) -> TrainSummary:
        """The result, with the history that is in the folder."""
        found, progress = self.validation, self.progress
        accuracies, best = found.accuracies, progress.best
        assert best is not None  # the untrained model was validated
        return TrainSummary(
            kind=KIND,
            format=FORMAT,
            finished=progress.finished,
            diverged=progress.diverged,
            stopped=progress.stopped,
            iterations=progress.step,
            best_step=best.step,
            best_epoch=best.epoch,
            pixel_accuracy=accuracies.pixel,
            macro_accuracy=accuracies.macro,
            worst_class_accuracy=accuracies.worst,
            worst_class=accuracies.worst_class,
            class_accuracy=accuracies.classes,
            confusion=tuple(map(tuple, found.confusion.tolist())),
            background_share=found.shares.background,
            majority_share=found.shares.majority,
            skill=found.skill,
            loss=found.loss,
            focal=found.focal,
            kl=found.kl,
            kl_dimensions=found.kl_dimensions,
            active_dimensions=found.active_dimensions,
            history=tuple(read_history(folder)),
            warnings=tuple(progress.warnings),
            setup=self.setup,
            seconds=progress.seconds,
            run_dir=str(folder),
        )


def read_history(folder: Path) -> list[HistoryRow]:
    """The validations in `metrics.csv`."""
    import msgspec

    with (folder / METRICS).open(newline="", encoding="utf-8") as stream:
        rows = [{name: value or None for name, value in row.items()} for row in csv.DictReader(stream)]
    return msgspec.convert(rows, list[HistoryRow], strict=False)
