"""Result of a training run as plain values: `result.json` holds it, commands print it, and it is read again."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vaefit.cache.regular_file import open_regular

from ..errors import RunError
from ..objective.preflight import Agreement
from ..training.progress import Progress
from ..training.validation import Validation
from .metrics import ACCURACIES, BASELINES, SplitMetrics, measured_on_split
from .overfit_summary import DatasetSummary, WeightsSummary

KIND = "train"
FORMAT = 1
"""Format of the folder of a training run; a run of another format is not resumed."""
METRICS = "metrics.csv"
UNUSED = ("iterations", "resample", "stop_when", "target")
"""Fields of a recipe without a meaning in training: its length follows from the epochs, and it judges no batch."""


@dataclass(frozen=True)
class TrainingSetup:
    """Header of a training run: everything known before its first update."""

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
    """Way in which batches are read, in words."""
    batch_size: int
    epochs: int
    updates: int
    """Planned."""
    updates_an_epoch: int
    preflight: Agreement | None
    lr: float
    lr_reason: str | None
    """Result of the range test that chose `lr`; None where `lr` was given."""
    ranks: int = 1
    """Processes that train together."""


@dataclass(frozen=True)
class HistoryRow:
    """A validation: a row of `metrics.csv`."""

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


@dataclass(frozen=True, kw_only=True)
class TrainSummary(SplitMetrics):
    """A finished training run, with the metrics of its best validation by macro accuracy."""

    KEYS: ClassVar[tuple[str, ...]] = (
        "kind", "format", "finished", "diverged", "stopped", "iterations", "best_step", "best_epoch",
        *ACCURACIES, "confusion", *BASELINES,
    )  # fmt: skip

    kind: str
    format: int
    finished: bool
    """False where the run diverged."""
    diverged: str | None
    stopped: str | None
    """Why the run ended before its last update; None where it did not."""
    iterations: int
    """Updates done."""
    best_step: int
    best_epoch: int
    history: tuple[HistoryRow, ...]
    warnings: tuple[str, ...]
    setup: TrainingSetup
    seconds: float
    run_dir: str

    @classmethod
    def from_run(cls, setup: TrainingSetup, progress: Progress, validation: Validation, folder: Path) -> TrainSummary:
        """Summarise a run with the validation of its best weights; `metrics.csv` in the folder holds its history."""
        best = progress.best
        assert best is not None  # the untrained model was validated
        return cls(
            kind=KIND,
            format=FORMAT,
            finished=progress.finished,
            diverged=progress.diverged,
            stopped=progress.stopped,
            iterations=progress.step,
            best_step=best.step,
            best_epoch=best.epoch,
            history=tuple(read_history(folder)),
            warnings=tuple(progress.warnings),
            setup=setup,
            seconds=progress.seconds,
            run_dir=str(folder),
            **measured_on_split(validation),
        )


def read_history(folder: Path) -> list[HistoryRow]:
    """Read the validations in `metrics.csv`; RunError where it holds other rows."""
    import msgspec

    with io.TextIOWrapper(open_regular(folder / METRICS, within=folder), "utf-8", newline="") as stream:
        rows = [{name: value or None for name, value in row.items()} for row in csv.DictReader(stream)]
    try:
        return msgspec.convert(rows, list[HistoryRow], strict=False)
    except msgspec.ValidationError as error:
        do = "Put the file back, or start the run again, with --overwrite."
        what = "the file does not hold the rows of the run"
        raise RunError(what, str(folder / METRICS), str(error), do) from error
