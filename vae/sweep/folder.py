"""Folder of a sweep: a row of `sweep.csv` for each finished run, then `sweep.json` and `sweep.png`."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

from ..errors import RunError
from ..results.json_values import json_file
from ..run_folder.folder import RunFolder
from ..run_folder.reader import read_json
from .outcome import SweepOutcome, SweepRun
from .plan import Knob

FILES = ("sweep.csv", "sweep.json", "sweep.png")
_COLUMNS = tuple(f.name for f in fields(SweepRun) if f.name != "values")
_NAME_LENGTH = 80


@dataclass(frozen=True)
class SweepFolder(RunFolder):
    """The folder of one sweep."""

    kind: ClassVar[str] = "sweep"

    def run_folder(self, place: int, knobs: tuple[Knob, ...], values: tuple[str, ...], number: int) -> Path:
        """Return the folder of the run at `place`, named by its values and seeds."""
        words = [f"{knob.name}={value}" for knob, value in zip(knobs, values, strict=True)]
        name = re.sub(r"[^\w.=,+-]+", "_", "-".join([f"{place:03d}", *words, f"seed={number}"]))
        return self.path / name[:_NAME_LENGTH]

    def begin(self, knobs: tuple[Knob, ...]) -> None:
        """Remove the files of an earlier sweep, its run folders excepted, and write the header of `sweep.csv`."""
        self.remove(FILES)
        # as it is typed: `iterations` is a result as well
        self._row([*(knob.name if knob.name == "data" else f"--{knob.name}" for knob in knobs), *_COLUMNS])

    def add(self, run: SweepRun) -> None:
        """Append the row of a run."""
        self._row([*run.values, *(getattr(run, name) for name in _COLUMNS)])

    def finish(self, outcome: SweepOutcome) -> None:
        """Draw the picture and, last, write `sweep.json`: it marks a whole folder."""
        from .chart import draw_sweep

        if outcome.runs:
            self.draw("sweep.png", lambda out: draw_sweep(outcome, out))
        self.write("sweep.json", json_file(outcome.json()))

    def _row(self, row: list[object]) -> None:
        with self.failing("sweep.csv"), (self.path / "sweep.csv").open("a", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerow(row)


def read_sweep(folder: Path) -> SweepOutcome:
    """Read the finished sweep in a folder; RunError where it holds none of this version."""
    import msgspec

    found = read_json(folder, "sweep.json")
    try:
        return msgspec.convert(found, SweepOutcome)
    except msgspec.ValidationError as error:
        do = "It was written by another version of vaefit, or changed by hand: run the sweep again."
        raise RunError("the sweep cannot be read", str(folder / "sweep.json"), str(error), do) from error
