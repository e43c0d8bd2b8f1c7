"""The run folder: settings, metrics, result, weights and pictures of one run."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from torch import nn

from vaefit.cache.atomic import replacing, write_atomically

from ..errors import RunError
from ..result import Record
from .summary import config_json, result_json

if TYPE_CHECKING:
    from ..check import Check, Prepared
    from ..settings import CheckSettings

FILES = ("config.json", "metrics.csv", "result.json", "reconstructions.png", "curves.png", "model.safetensors")


@dataclass(frozen=True)
class RunFolder:
    """A folder that belongs to one run."""

    path: Path
    made: tuple[Path, ...] = ()
    """The folders that were made for it, innermost first."""

    @classmethod
    def claim(cls, out: Path | None, overwrite: bool) -> RunFolder:
        """Make the folder, or take an empty one; RunError where it cannot be written or holds anything.

        With `overwrite` it may hold anything; the files of an earlier run stay until this one begins. None takes
        ./runs/overfit-YYYYMMDD-HHMMSS.
        """
        if out is not None and out.is_file():
            raise RunError("the run folder is a file", str(out), do="Pass the name of a folder as --out.")
        # without --out, ./runs may have to be made; it goes again too, unless other runs are in it
        path = Path("runs").absolute() if out is None else out.absolute()
        made = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            if out is None:
                path = _fresh()
                made.insert(0, path)
            path.mkdir(parents=True, exist_ok=True)
            taken = any(path.iterdir())
            # found out now, not after the fit
            with TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise RunError(
                "the run folder cannot be written", str(path), error.strerror or str(error), "Pass another --out."
            ) from error
        if taken and not overwrite:
            raise RunError("the run folder is not empty", str(path), do="Pass --overwrite, or another --out.")
        return cls(path, tuple(made))

    def release(self) -> None:
        """Give up a claimed folder; one that holds anything, and one that was there before, stays."""
        for folder in self.made:
            with suppress(OSError):
                folder.rmdir()

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
        self._write("config.json", _json(config_json(settings, prepared)))

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
        """Write the weights, the pictures and, last, `result.json`: where that is there, all is."""
        from safetensors.torch import save

        from .curves import draw_curves
        from .pictures import draw_reconstructions

        state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        self._write("model.safetensors", save(state))
        for name, draw in (("reconstructions.png", draw_reconstructions), ("curves.png", draw_curves)):
            try:
                with replacing(self.path / name) as temporary:
                    draw(check.result, temporary)
            except OSError as error:
                raise self._failed(name, error) from error
        self._write("result.json", _json(result_json(check)))

    def _write(self, name: str, data: bytes) -> None:
        try:
            write_atomically(self.path / name, data)
        except OSError as error:
            raise self._failed(name, error) from error

    def _failed(self, name: str, error: OSError) -> RunError:
        return RunError("the file cannot be written", str(self.path / name), error.strerror or str(error))


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


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()


def _fresh() -> Path:
    """Make a folder below ./runs named by the time; a second run within the second gets a number."""
    base = (Path("runs") / f"overfit-{datetime.now():%Y%m%d-%H%M%S}").absolute()
    base.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        path = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            path.mkdir()  # whoever makes it has it
        except FileExistsError:
            continue
        return path
    raise AssertionError("counting never ends")
