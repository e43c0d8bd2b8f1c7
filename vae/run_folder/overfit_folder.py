"""The folder of an overfit run: settings, metrics, result, weights and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from ..fitting.result import Record
from ..results.config import config_json
from ..results.json_values import json_file
from ..results.overfit_summary import RunSummary
from .cleanup import remove_earlier
from .folder import Rows, WrittenFolder, weights_file
from .reader import read_json
from .tensorboard_events import FOLDER, EventFile

if TYPE_CHECKING:
    from ..fitting.result import OverfitRun, Prepared
    from ..settings import CheckSettings


@dataclass(frozen=True)
class OverfitFolder(WrittenFolder):
    """The folder of one overfit run."""

    kind: ClassVar[str] = "overfit"

    @contextmanager
    def recording(self, settings: CheckSettings, prepared: Prepared) -> Iterator[Callable[[Record], None]]:
        """Give what writes one row of `metrics.csv`, and one event for TensorBoard if the settings ask for it.

        Each is whole on disk before the next step.

        The first row begins the run: the files of an earlier one are removed, no others, and `config.json` is written.
        A run that never gets to its first step leaves everything as it was.
        """
        with ExitStack() as stack:
            rows: Rows | None = None
            events: EventFile | None = None

            def write(record: Record) -> None:
                nonlocal rows, events
                if rows is None:
                    self._begin(settings, prepared)
                    rows = stack.enter_context(self.rows("metrics.csv"))
                    classes = range(len(record.accuracies.classes))
                    rows.write([*_COLUMNS, *(f"class_{c}" for c in classes)])
                    if settings.tensorboard:
                        with self.failing(FOLDER):
                            events = stack.enter_context(EventFile.create(self.path))
                rows.write(_row(record))
                if events is not None:
                    with self.failing(FOLDER):
                        events.step(record)

            yield write

    def _begin(self, settings: CheckSettings, prepared: Prepared) -> None:
        remove_earlier(self)
        self.write("config.json", json_file(config_json(settings, prepared)))

    def write_result(self, check: OverfitRun, model: nn.Module) -> None:
        """Write the weights, the pictures, the page and, last, `result.json`: where that is there, all is."""
        from ..report.curves import draw_curves
        from ..report.page.overfit_page import OverfitPage
        from ..report.reconstructions import Panels, draw_panels

        self.write("model.safetensors", weights_file(model))
        self.draw("reconstructions.png", partial(draw_panels, Panels.from_result(check.result)))
        self.draw("curves.png", partial(draw_curves, check.result))
        if check.settings.tensorboard:
            with self.failing(FOLDER), EventFile.reopen(self.path) as events:
                events.end(check.result, (self.path / "reconstructions.png").read_bytes())
        self.write("report.html", OverfitPage.from_run(check, read_json(self.path, "config.json")).page())
        self.write("result.json", json_file(RunSummary.from_run(check).json()))


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
