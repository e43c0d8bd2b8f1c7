"""The run folder: settings, metrics, result, weights and pictures of one run."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from vaefit.cache.atomic import replacing, write_atomically

from ..errors import RunError
from ..result import Record
from .claim import ClaimedFolder
from .config import config_json
from .event_files import FOLDER, EventFile, remove_event_files
from .jsonable import json_file
from .stored import read_json
from .summary import RunSummary

if TYPE_CHECKING:
    from ..check import Check, Prepared
    from ..settings import CheckSettings

FILES = (
    "config.json", "metrics.csv", "result.json", "report.html", "reconstructions.png", "curves.png",
    "model.safetensors",
)  # fmt: skip


@dataclass(frozen=True)
class RunFolder(ClaimedFolder):
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
            write_row: Callable[[list[object]], None] | None = None
            events: EventFile | None = None

            def write(record: Record) -> None:
                nonlocal write_row, events
                if write_row is None:
                    self._begin(settings, prepared)
                    write_row = stack.enter_context(self._rows("metrics.csv"))
                    classes = range(len(record.accuracies.classes))
                    write_row([*_COLUMNS, *(f"class_{c}" for c in classes)])
                    if settings.tensorboard:
                        with self._failing(FOLDER):
                            events = stack.enter_context(EventFile.create(self.path))
                write_row(_row(record))
                if events is not None:
                    with self._failing(FOLDER):
                        events.step(record)

            yield write

    def _begin(self, settings: CheckSettings, prepared: Prepared) -> None:
        for name in FILES:
            with self._failing(name):
                (self.path / name).unlink(missing_ok=True)
        with self._failing(FOLDER):
            remove_event_files(self.path)
        self._write("config.json", json_file(config_json(settings, prepared)))

    @contextmanager
    def _rows(self, name: str) -> Iterator[Callable[[list[object]], None]]:
        with self._failing(name):
            stream = (self.path / name).open("w", newline="", encoding="utf-8", buffering=1)
        rows = csv.writer(stream, lineterminator="\n")

        def write(row: list[object]) -> None:
            with self._failing(name):
                rows.writerow(row)

        try:
            yield write
        except BaseException:
            with suppress(OSError):  # a full disk fails again here, and would hide what happened
                stream.close()
            raise
        stream.close()

    def write_result(self, check: Check, model: nn.Module) -> None:
        """Write the weights, the pictures, the page and, last, `result.json`: where that is there, all is."""
        from safetensors.torch import save

        from .curves import draw_curves
        from .page.content import ReportContent
        from .pictures import draw_reconstructions

        # cloned: tensors that share memory, as tied weights do, are refused
        state = {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, value in model.state_dict().items()
            if isinstance(value, Tensor)
        }
        self._write("model.safetensors", save(state))
        for name, draw in (("reconstructions.png", draw_reconstructions), ("curves.png", draw_curves)):
            with self._failing(name), replacing(self.path / name) as temporary:
                draw(check.result, temporary)
        if check.settings.tensorboard:
            with self._failing(FOLDER), EventFile.reopen(self.path) as events:
                events.end(check.result, (self.path / "reconstructions.png").read_bytes())
        self._write("report.html", ReportContent.of(check, read_json(self.path, "config.json")).page())
        self._write("result.json", json_file(RunSummary.of(check).json()))

    def _write(self, name: str, data: bytes) -> None:
        with self._failing(name):
            write_atomically(self.path / name, data)

    @contextmanager
    def _failing(self, name: str) -> Iterator[None]:
        """Raise the RunError that an OSError means: `name` cannot be written."""
        try:
            yield
        except OSError as error:
            do = "Check the permissions and the free space there."
            where = str(self.path / name)
            raise RunError("the file cannot be written", where, error.strerror or str(error), do) from error


_COLUMNS = (
    "step", "lr", "beta", "loss", "focal", "kl", "train_loss", "grad_norm",
    "pixel_accuracy", "macro_accuracy", "worst_class_accuracy",
)  # fmt: skip


def _row(record: Record) -> list[object]:
    a = record.accuracies
    values = (
        record.step, record.lr, record.beta, record.loss, record.focal, record.kl, record.train_loss, record.grad_norm,
        a.pixel, a.macro, a.worst, *a.classes,
    )  # fmt: skip
    return ["" if value is None else value for value in values]
