"""A folder with small datasets whose every cell holds one label, for drills that change files behind a cache's back."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np

from tests.fault_injection.protocol import Report, Task
from tests.fault_injection.sandbox import Forks

SHAPE = (5, 4, 3)
CELLS = 60
DATASET = "grids"
SETTLE_S = 2.1
"""A file written so long ago has times that tell of the next write, whatever the file system."""


class WrongError(Exception):
    """A drill did not end as it must; the text says how."""


@dataclass(frozen=True)
class Scene:
    """A folder of its own, and forks to count in it."""

    folder: Path
    forks: Forks
    settle: bool
    """Wait before counting until the files are old enough to be believed by their times."""

    def path(self, name: str) -> Path:
        """A file of the scene."""
        return self.folder / name

    def dataset(self, name: str, label: int, dataset: str = DATASET) -> Path:
        """A contiguous dataset all of one label, so that its cells are found by their bytes."""
        with h5py.File(self.path(name), "a") as handle:
            handle.create_dataset(dataset, data=np.full(SHAPE, label, np.uint8))
        return self.path(name)

    def ready(self) -> None:
        """The files are as they shall be counted first."""
        if self.settle:
            time.sleep(SETTLE_S)

    def count(self, name: str, do: str = "cached", dataset: str = DATASET, **more: object) -> Report:
        """Count one of the scene's datasets with the cache, or as `do` says."""
        task = Task("cached", str(self.path(name)), str(self.folder), dataset)
        return self.forks.run(replace(task, do=do, **more))  # type: ignore[arg-type]

    def files(self) -> list[str]:
        """Names of all files, hidden ones too, below the folder."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

    def cached(self) -> list[Path]:
        """The cached files beside the data."""
        return sorted(path for path in self.folder.glob("*.vaefit.json"))


def relabel(path: Path, old: int, new: int) -> None:
    """Overwrite the cells in place, and put the file's times back."""
    before, data = path.stat(), path.read_bytes()
    at = data.index(bytes([old]) * CELLS)
    handle = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(handle, bytes([new]) * CELLS, at)
    finally:
        os.close(handle)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def must(report: Report, label: int, source: str = "", warning: str = "") -> None:
    """WrongError unless all cells were counted as `label`, from `source` and with such a warning if those are given."""
    if report.end != "counts":
        raise WrongError(f"{report.end}: {report.text.strip().splitlines()[-1:]}")
    if report.counts != {label: CELLS}:
        raise WrongError(f"counts {report.counts} from the {report.source}, not {{{label}: {CELLS}}}")
    if source and report.source != source:
        raise WrongError(f"right counts, but from the {report.source}, not from the {source}")
    if warning and not any(warning in line for line in report.warnings):
        raise WrongError(f"right counts, but no word of {warning!r} in {report.warnings}")


def must_fail(report: Report, words: str) -> None:
    """WrongError unless there was a clear error with such words."""
    if report.end != "error" or words not in report.text:
        raise WrongError(f"{report.end} {report.counts or report.text.strip()}, not an error with {words!r}")
