"""Folder of a training run: settings, rows of metrics, best weights, checkpoints and result."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import msgspec
from torch import nn

from vaefit.cache.regular_file import check_regular

from ..errors import RunError
from ..loader.split import ROLES
from ..metrics.accuracy import Accuracies
from ..results.config import config_json
from ..results.json_values import json_file
from ..results.training_summary import FORMAT, KIND, METRICS, TrainingSetup, TrainSummary
from ..training.checkpoint import Checkpoint, CheckpointFolder
from ..training.prepare import PreparedTraining
from ..training.progress import BestValidation, ChosenRate, Progress, RunRecorder, StepsRow, ValidationRow
from ..training.running_mean import Average
from ..training.settings import TrainSettings
from ..training.validation import Validation
from .folder import Rows, RunFolder, weights_file
from .reader import read_json

if TYPE_CHECKING:
    from ..distributed.process_group import ProcessGroup

STEPS, WEIGHTS = "steps.csv", "model.safetensors"

_log = logging.getLogger("vaefit")


@dataclass(frozen=True)
class TrainFolder(RunFolder):
    """The folder of one training run."""

    kind: ClassVar[str] = KIND

    @property
    def checkpoints(self) -> CheckpointFolder:
        """The checkpoints of the run."""
        return CheckpointFolder.from_run(self.path)

    def begin(
        self,
        settings: TrainSettings,
        prepared: PreparedTraining,
        loader: str,
        rate: ChosenRate,
        job: ProcessGroup | None,
    ) -> None:
        """Remove the files of an earlier run and write `config.json`; `loader` is the chosen mode."""
        dataset = prepared.dataset
        config = {
            "kind": KIND,
            "format": FORMAT,
            **config_json(settings, prepared),
            "dataset": {"digest": dataset.digest, "grids": dataset.grids, "counts": dataset.counts.tolist()},
            "weights": prepared.weights.values.tolist(),
            "split": {role: prepared.split.size(role) for role in ROLES},
            "loader": loader,
            "rate": asdict(rate),
            "ranks": 1 if job is None else job.size,
            "job": None if job is None else job.name,
        }
        self.remove_earlier()
        self.write("config.json", json_file(config))

    @contextmanager
    def recording(self, classes: int, checkpoint: Checkpoint | None) -> Iterator[Recorder]:
        """Give a recorder; rows after the checkpoint, if there is one, are cut off.

        Raises RunError where a file cannot be written, or is shorter than at the checkpoint.
        """
        try:
            before = {} if checkpoint is None else msgspec.convert(checkpoint.numbers["lengths"], dict[str, int])
        except (KeyError, msgspec.ValidationError) as error:
            do = "It was changed by hand: start the run again, with --overwrite."
            raise RunError("the checkpoint lacks the lengths of the files", str(self.path), str(error), do) from error
        for name, length in before.items():
            try:
                found = check_regular(self.path / name, within=self.path).stat().st_size
                got = f"{found:,} bytes"
            except OSError as error:
                found, got = -1, error.strerror or str(error)
            if found < length:
                do = "Put the file back, or start the run again, with --overwrite."
                what = f"the file is gone, or shorter than at the checkpoint, {length:,} bytes"
                raise RunError(what, str(self.path / name), got, do)
        with self.rows(METRICS, before.get(METRICS)) as metrics, self.rows(STEPS, before.get(STEPS)) as steps:
            if checkpoint is None:
                metrics.write([*_METRICS_COLUMNS, *(f"class_{c}" for c in range(classes))])
                steps.write([*_STEPS_COLUMNS, *(f"class_{c}" for c in range(classes))])
            yield Recorder(self, metrics, steps, classes, None if checkpoint is None else checkpoint.step)

    def finish(
        self, setup: TrainingSetup, progress: Progress, validation: Validation, ignore_index: int | None
    ) -> TrainSummary:
        """Write the pictures, the page and, last, `result.json`: it marks a whole folder.

        `validation` is that of the best weights.
        """
        from ..report.curves import draw_training_curves
        from ..report.page.training_page import training_page
        from ..report.reconstructions import Panels, draw_panels

        summary = TrainSummary.from_run(setup, progress, validation, self.path)
        self.draw("curves.png", partial(draw_training_curves, summary))
        title = f"validation, weights of update {summary.best_step:,}"
        panels = Panels.from_validation(validation, len(summary.class_accuracy), ignore_index, title)
        self.draw("reconstructions.png", partial(draw_panels, panels))
        picture = (self.path / "reconstructions.png").read_bytes()
        content = training_page(summary, validation, read_json(self.path, "config.json"), picture)
        self.write("report.html", content)
        self.write("result.json", json_file(summary.json()))
        return summary


@dataclass
class Recorder(RunRecorder):
    """Writer of the rows, weights and checkpoints of a run."""

    folder: TrainFolder
    metrics: Rows
    steps: Rows
    classes: int
    newest: int | None = None
    """The update of the newest checkpoint on the disk."""

    def steps_row(self, row: StepsRow) -> None:
        """Add a row to `steps.csv`."""
        self.steps.write([row.step, row.epoch, row.lr, row.beta, *_averages(row.average, self.classes)])

    def validation_row(self, row: ValidationRow) -> None:
        """Add a row to `metrics.csv`."""
        found = row.validation
        head = [row.step, row.epoch, row.lr, row.beta, *_averages(row.training, 0)]
        head += [found.loss, found.focal, found.kl, found.active_dimensions, found.skill]
        self.metrics.write([*head, *_accuracies(found.accuracies, self.classes)])

    def best(self, model: nn.Module, best: BestValidation) -> None:
        """Write the weights, which are the best so far."""
        self.folder.write(WEIGHTS, weights_file(model))

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write the state, after the rows up to here are on the disk.

        Where it cannot be written, a warning says so and training goes on: the checkpoint before is still there. Raises
        RunError for the first checkpoint, because no other one could be resumed.
        """
        try:
            lengths = {METRICS: self.metrics.length(), STEPS: self.steps.length()}
            numbers = {**checkpoint.numbers, "lengths": lengths}
            self.folder.checkpoints.write(replace(checkpoint, numbers=numbers))
        except OSError as error:
            what = f"the checkpoint of update {checkpoint.step:,} cannot be written ({error.strerror or error})"
            if self.newest is None:
                where = str(self.folder.checkpoints.path)
                do = "Check the permissions and the free space there."
                raise RunError("no checkpoint can be written", where, error.strerror or str(error), do) from error
            _log.warning(f"{what}; that of update {self.newest:,} is kept, and the next one is tried in its time")
        else:
            self.newest = checkpoint.step


_TRAINING = ("loss", "focal", "kl", "grad_norm", "pixel_accuracy", "macro_accuracy", "worst_class_accuracy")
_ACCURACIES = _TRAINING[-3:]
_STEPS_COLUMNS = ("step", "epoch", "lr", "beta", *_TRAINING)
_METRICS_COLUMNS = (
    "step", "epoch", "lr", "beta", *(f"train_{name}" for name in _TRAINING),
    "loss", "focal", "kl", "active_dimensions", "skill", *_ACCURACIES,
)  # fmt: skip


def _averages(found: Average | None, classes: int) -> list[object]:
    """Return the columns of `_TRAINING`, and the accuracy of the first `classes` classes."""
    if found is None:
        return [None] * (len(_TRAINING) + classes)
    return [found.loss, found.focal, found.kl, found.grad_norm, *_accuracies(found.accuracies, classes)]


def _accuracies(found: Accuracies | None, classes: int) -> list[object]:
    """Return pixel, macro and worst class accuracy, and the accuracy of the first `classes` classes."""
    if found is None:
        return [None] * (3 + classes)
    return [found.pixel, found.macro, found.worst, *found.classes[:classes]]
