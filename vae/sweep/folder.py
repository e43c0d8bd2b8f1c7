"""The folder of a sweep: a row of `sweep.csv` for each run as it ends, then `sweep.json` and `sweep.png`."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from vaefit.cache.store.atomic import replacing, write_atomically

from ..errors import RunError
from ..results.json_values import json_file
from ..run_folder.folder import ClaimedFolder
from ..run_folder.reader import read_json
from .outcome import SweepOutcome, SweepRun
from .plan import Knob

FILES = ("sweep.csv", "sweep.json", "sweep.png")
_COLUMNS = tuple(f.name for f in fields(SweepRun) if f.name != "values")
_NAME_LENGTH = 80


@dataclass(frozen=True)
class SweepFolder(ClaimedFolder):
    """The folder of one sweep."""

    kind: ClassVar[str] = "sweep"

    def run_folder(self, place: int, knobs: tuple[Knob, ...], values: tuple[str, ...], number: int) -> Path:
        """The folder of the run at `place`, named so that people find it."""
        words = [f"{knob.name}={value}" for knob, value in zip(knobs, values, strict=True)]
        name = re.sub(r"[^\w.=,+-]+", "_", "-".join([f"{place:03d}", *words, f"seed={number}"]))
        return self.path / name[:_NAME_LENGTH]

    def begin(self, knobs: tuple[Knob, ...]) -> None:
        """Remove what an earlier sweep left, its runs excepted, and write the header of `sweep.csv`."""
        with self._writing(FILES[0]):
            for name in FILES:
                (self.path / name).unlink(missing_ok=True)
            (self.path / FILES[0]).write_text(_line([*map(_column, knobs), *_COLUMNS]), encoding="utf-8")

    def add(self, run: SweepRun) -> None:
        """Append the row of a run."""
        row = [*run.values, *(getattr(run, name) for name in _COLUMNS)]
        with self._writing(FILES[0]), (self.path / FILES[0]).open("a", encoding="utf-8", newline="") as stream:
            stream.write(_line(["" if value is None else value for value in row]))

    def finish(self, outcome: SweepOutcome) -> None:
        """Draw the picture and, last, write `sweep.json`: where that is there, all is."""
        from .chart import draw_sweep

        with self._writing(FILES[2]), replacing(self.path / FILES[2]) as temporary:
            draw_sweep(outcome, temporary)
        with self._writing(FILES[1]):
            write_atomically(self.path / FILES[1], json_file(outcome.json()))

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = str(self.path / name)
            do = "Check the permissions and the free space there."
            raise RunError("the file cannot be written", where, error.strerror or str(error), do) from error


def read_sweep(folder: Path) -> SweepOutcome:
    """The finished sweep in a folder; RunError where there is none of this version."""
    import msgspec

    found: dict[str, Any] = read_json(folder, FILES[1])
    try:
        return msgspec.convert(found, SweepOutcome)
    except msgspec.ValidationError as error:
        do = "It was written by another version of vaefit, or changed by hand: run the sweep again."
        raise RunError("the sweep cannot be read", str(folder / FILES[1]), str(error), do) from error


def _column(knob: Knob) -> str:
    """A knob as it is typed: `iterations` is a result as well, and must not stand for both."""
    return knob.name if knob.name == "data" else f"--{knob.name}"


def _line(row: list[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()
