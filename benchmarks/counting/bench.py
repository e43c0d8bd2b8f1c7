"""Counting whole datasets against what people write, and against the cost of only decoding them.

Each layout is written to a temporary folder. Every contestant first counts it once: where a count differs from numpy's
of the same cells, nothing of that layout is timed. Then they count in turns, each from opening the file on, in worker
processes; of two workers one has no libdeflate. What is compiled is built outside of the times. Files are in the page
cache.
"""

from __future__ import annotations

import logging
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py

from vaefit.cache.errors import SettingError, require, require_range
from vaefit.cache.scan.native_counter import ByteCounter, build_counter
from vaefit.vae.environment.hardware import cpu_name
from vaefit.vae.errors import RunError
from vaefit.vae.results.json_values import plain

from .layouts import BY_NAME, LAYOUTS, QUICK, Layout, make_cells
from .race import COMPILED, FAST_MODULE, Contestant, CountRace, Subject
from .row import CountRow
from .scaling import SIZES, Scaling, measure_scaling
from .worker import Worker, WorkerError

_log = logging.getLogger(__name__)

Begins = Callable[[int, int, str], None]
"""Told, before each part, how many are done, how many there are, and which one begins."""

PACKAGES = ("numpy", "h5py", "deflate", "hdf5plugin")
MOST_GRIDS = 1 << 22


@dataclass(frozen=True)
class HistogramSettings:
    """The settings of `vaefit-cli bench histogram`; SettingError for a value that is wrong by itself."""

    layouts: tuple[str, ...] | None = None
    """Their names; None is all, or with `quick` those that goals are set for."""
    grids: int | None = None
    """Of each layout."""
    quick: bool = False
    """Fewer rounds, layouts and grids, no dataset of 4 GB, and memory of ours alone."""

    def __post_init__(self) -> None:
        for name in self.layouts or ():
            require(name in BY_NAME, "--layout", name, f"one of {', '.join(BY_NAME)}")
        if len(set(self.layouts or ())) < len(self.layouts or ()):
            raise SettingError("a value is given twice", "--layout", ", ".join(self.layouts or ()), "Pass each once.")
        if self.grids is not None:
            require_range("--grids", self.grids, 1, MOST_GRIDS)

    @property
    def grids_of_each(self) -> int:
        """A row of the longest chunks at least, unless asked otherwise."""
        return self.grids or (1 << 17 if self.quick else 1 << 18)

    @property
    def rounds(self) -> int:
        """Samples of each contestant."""
        return 3 if self.quick else 5

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the datasets that memory and linear time are measured on."""
        return SIZES[:-1] if self.quick else SIZES

    def chosen(self) -> list[Layout]:
        """The layouts that can be written here; a warning for what is left out."""
        names = self.layouts or (QUICK if self.quick else tuple(BY_NAME))
        if self.quick and self.layouts is None:
            others = ", ".join(layout.name for layout in LAYOUTS if layout.name not in QUICK)
            _log.warning(f"left out with --quick: {others}; --layout takes them")
        found = [BY_NAME[name] for name in names]
        missing = ", ".join(layout.name for layout in found if not layout.installed)
        if missing:
            _log.warning(f"left out: {missing}; hdf5plugin is not installed: pip install 'vaefit[bench]'")
        return [layout for layout in found if layout.installed]


@dataclass(frozen=True)
class HistogramBench:
    """What was measured."""

    settings: HistogramSettings
    rows: tuple[CountRow, ...]
    scaling: Scaling
    fast: bool
    """libdeflate, the extra `fast`, is installed."""
    counter: ByteCounter
    """What the compiled contestant counts with; numpy, and why, where there is no such contestant."""
    cpus: int
    """Processors that this process may use."""
    versions: dict[str, str | None]

    @property
    def passed(self) -> bool:
        """Every count was right."""
        return self.scaling.passed and all(row.parity for row in self.rows)

    def row(self, layout: str, contestant: Contestant) -> CountRow | None:
        """One row; None where that was not measured."""
        found = (row for row in self.rows if (row.layout, row.contestant) == (layout, contestant.name))
        return next(found, None)

    @property
    def place(self) -> dict[str, Any]:
        """The machine."""
        return {"cpu": cpu_name(), "cpus": self.cpus, "system": platform.system()}

    def json(self) -> dict[str, Any]:
        """The result and the machine, as JSON."""
        found: dict[str, Any] = plain({
            "machine": self.place,
            "versions": self.versions,
            "counter": {"told": self.counter.told, "build_s": self.counter.build_s},
            "clock": "CPU time and wall time, files in the page cache",
            "grids": self.settings.grids_of_each,
            "rounds": self.settings.rounds,
            "parity": self.passed,
            "rows": [row.json() for row in self.rows],
            **self.scaling.json(),
        })  # fmt: skip
        return found


def bench_histogram(settings: HistogramSettings, begins: Begins | None = None) -> HistogramBench:
    """Measure every layout and contestant, then memory and time over sizes, and the cache.

    Raises RunError where a contestant fails, and OSError where the temporary folder has no room.
    """
    layouts = settings.chosen()
    fast = find_spec(FAST_MODULE) is not None
    if not fast:
        _log.warning("libdeflate is not installed, so all is measured with zlib: pip install 'vaefit[fast]'")
    counter = build_counter()
    if counter.count is None:
        _log.warning(f"left out: {COMPILED.name}; {counter.told}")
    parts = len(layouts) + 1

    def announce(done: int, what: str) -> None:
        if begins is not None:
            begins(done, parts, what)

    with tempfile.TemporaryDirectory(prefix="vaefit-bench-") as name:
        folder = Path(name)
        rows: list[CountRow] = []
        announce(0, "making grids")
        cells = make_cells(settings.grids_of_each)
        with Worker() as usual, Worker((FAST_MODULE,)) as slower:
            for done, layout in enumerate(layouts):

                def told(name: str, done: int = done, title: str = layout.title) -> None:
                    announce(done, f"{title}: {name}")

                subject = Subject.write(layout, cells, folder)
                with _told(layout.title):
                    race = CountRace(subject, usual, slower, counter.count is not None, told)
                    rows += race.rows(settings.rounds, memory_of_all=not settings.quick)
                subject.file.unlink()
        with _told("gzip-4 of growing size"):
            scaling = measure_scaling(settings.sizes, settings.rounds, folder, lambda what: announce(parts - 1, what))
    return HistogramBench(settings, tuple(rows), scaling, fast, counter, _cpus(), _versions())


@contextmanager
def _told(where: str) -> Iterator[None]:
    """RunError where a worker fails."""
    try:
        yield
    except WorkerError as error:
        raise RunError("a contestant failed", where, str(error)) from error


def _cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _versions() -> dict[str, str | None]:
    """Of Python, HDF5 and what counts; None where it is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "hdf5": h5py.version.hdf5_version}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found
