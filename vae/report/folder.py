"""The run folder: settings, metrics, result, weights and pictures of one run."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from vaefit.cache.atomic import replacing, write_atomically

from ..errors import RunError
from ..result import Record
from .claim import ClaimedFolder
from .config import config_json
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
        """Give what writes one row of `metrics.csv`; each row is whole on disk before the next step.

        The first row begins the run: the files of an earlier one are removed, no others, and `config.json` is written.
        A run that never gets to its first step leaves everything as it was.
        """
        with ExitStack() as stack:
            write_row: Callable[[list[object]], None] | None = None

            def write(record: Record) -> None:
                nonlocal write_row
                if write_row is None:
                    self._begin(settings, prepared)
                    write_row = stack.enter_context(self._rows("metrics.csv"))
                    classes = range(len(record.accuracies.classes))
                    write_row([*_COLUMNS, *(f"class_{c}" for c in classes)])
                write_row(_row(record))

            yield write

    def _begin(self, settings: CheckSettings, prepared: Prepared) -> None:
        for name in FILES:
            try:
                (self.path / name).unlink(missing_ok=True)
            except OSError as error:
                raise self._failed(name, error) from error
        self._write("config.json", json_file(config_json(settings, prepared)))

    @contextmanager
    def _rows(self, name: str) -> Iterator[Callable[[list[object]], None]]:
        try:
            stream = (self.path / name).open("w", newline="", encoding="utf-8", buffering=1)
        except OSError as error:
            raise self._failed(name, error) from error
        rows = csv.writer(stream, lineterminator="\n")

        def write(row: list[object]) -> None:
            try:
                rows.writerow(row)
            except OSError as error:
                raise self._failed(name, error) from error

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

        state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        self._write("model.safetensors", save(state))
        for name, draw in (("reconstructions.png", draw_reconstructions), ("curves.png", draw_curves)):
            try:
                with replacing(self.path / name) as temporary:
                    draw(check.result, temporary)
            except OSError as error:
                raise self._failed(name, error) from error
        self._write("report.html", ReportContent.of(check, read_json(self.path, "config.json")).page())
        self._write("result.json", json_file(RunSummary.of(check).json()))

    def _write(self, name: str, data: bytes) -> None:
        try:
            write_atomically(self.path / name, data)
        except OSError as error:
            raise self._failed(name, error) from error

    def _failed(self, name: str, error: OSError) -> RunError:
        do = "Check the permissions and the free space there."
        return RunError("the file cannot be written", str(self.path / name), error.strerror or str(error), do)


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
