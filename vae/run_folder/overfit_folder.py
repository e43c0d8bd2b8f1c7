"""Folder of an overfit run: settings, metrics, result, weights and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import nn

from ..fitting.result import OverfitRun, Prepared, Record
from ..results.config import config_json
from ..results.json_values import json_file
from ..results.overfit_summary import RunSummary
from ..settings import CheckSettings
from .folder import Rows, RunFolder, weights_file
from .reader import read_json
from .tensorboard_events import FOLDER, append_result, append_step


@dataclass(frozen=True)
class OverfitFolder(RunFolder):
    """The folder of one overfit run."""

    kind: ClassVar[str] = "overfit"

    @contextmanager
    def recording(self, settings: CheckSettings, prepared: Prepared) -> Iterator[Callable[[Record], None]]:
        """Give a function that writes one row of `metrics.csv`, and a TensorBoard event if the settings ask for it.

        Each is on the disk before the next step. The first row begins the run: the files of an earlier run are removed,
        and `config.json` is written. A run that does not get to its first step changes nothing.
        """
        with ExitStack() as stack:
            rows: Rows | None = None

            def write(record: Record) -> None:
                nonlocal rows
                if rows is None:
                    self.remove_earlier()
                    self.write("config.json", json_file(config_json(settings, prepared)))
                    rows = stack.enter_context(self.rows("metrics.csv"))
                    rows.write([*_COLUMNS, *(f"class_{c}" for c in range(len(record.accuracies.classes)))])
                rows.write(_row(record))
                if settings.tensorboard:
                    with self.failing(FOLDER):
                        append_step(self.path, record)

            yield write

    def write_result(self, run: OverfitRun, model: nn.Module) -> None:
        """Write the weights, the pictures, the page and, last, `result.json`: it marks a whole folder."""
        from ..report.curves import draw_curves
        from ..report.page.overfit_page import overfit_page
        from ..report.reconstructions import Panels, draw_panels

        self.write("model.safetensors", weights_file(model))
        self.draw("reconstructions.png", partial(draw_panels, Panels.from_result(run.result)))
        self.draw("curves.png", partial(draw_curves, run.result))
        if run.settings.tensorboard:
            with self.failing(FOLDER):
                append_result(self.path, run.result, (self.path / "reconstructions.png").read_bytes())
        self.write("report.html", overfit_page(run, read_json(self.path, "config.json")))
        self.write("result.json", json_file(RunSummary.from_run(run).json()))


_COLUMNS = (
    "step", "lr", "beta", "loss", "focal", "kl", "train_loss", "grad_norm",
    "pixel_accuracy", "macro_accuracy", "worst_class_accuracy",
)  # fmt: skip


def _row(record: Record) -> list[object]:
    a = record.accuracies
    return [
        record.step, record.lr, record.beta, record.loss, record.focal, record.kl, record.train_loss, record.grad_norm,
        a.pixel, a.macro, a.worst, *a.classes,
    ]  # fmt: skip
