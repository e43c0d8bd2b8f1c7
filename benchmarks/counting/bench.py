"""Time the counting of whole datasets, against common alternatives and against decoding alone.

Each layout is written to a temporary folder. Every implementation first counts it once: if a count differs from
numpy's of the same cells, nothing of that layout is timed. Then they count in turns, from opening the file to the
counts, in two worker processes, one of them without libdeflate. The times exclude the build of the compiled counter;
files are in the page cache.
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

from .comparison import COMPILED, FAST_MODULE, CountComparison, Implementation, StoredLayout
from .layouts import BY_NAME, LAYOUTS, QUICK, Layout, make_cells
from .row import CountRow
from .scaling import SIZES, Scaling, measure_scaling
from .worker import Worker, WorkerError

_log = logging.getLogger("vaefit")

OnPart = Callable[[int, int, str], None]
"""Called before each part with the number of parts done, the number of all parts, and the name of the part."""

PACKAGES = ("numpy", "h5py", "deflate", "hdf5plugin")
MOST_GRIDS = 1 << 22


@dataclass(frozen=True)
class HistogramSettings:
    """The settings of `vaefit-cli bench histogram`; SettingError for a value that is wrong by itself."""

    layouts: tuple[str, ...] | None = None
    """Names of layouts; None is all, or with `quick` those that have goals."""
    grids: int | None = None
    """Number of grids of each layout."""
    quick: bool = False
    """Fewer rounds, layouts and grids, no dataset of 4 GB, and memory of our scan alone."""

    def __post_init__(self) -> None:
        for name in self.layouts or ():
            require(name in BY_NAME, "--layout", name, f"one of {', '.join(BY_NAME)}")
        if len(set(self.layouts or ())) < len(self.layouts or ()):
            raise SettingError("a value is given twice", "--layout", ", ".join(self.layouts or ()), "Pass each once.")
        if self.grids is not None:
            require_range("--grids", self.grids, 1, MOST_GRIDS)

    @property
    def grids_of_each(self) -> int:
        """Grids of each layout; the default fills at least one row of the longest chunks."""
        return self.grids or (1 << 17 if self.quick else 1 << 18)

    @property
    def rounds(self) -> int:
        """Samples of each implementation."""
        return 3 if self.quick else 5

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of the datasets on which memory and linear time are measured."""
        return SIZES[:-1] if self.quick else SIZES

    def chosen(self) -> list[Layout]:
        """Return the layouts that can be written here; a warning names those that are left out."""
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
    """Result of `vaefit-cli bench histogram`."""

    settings: HistogramSettings
    rows: tuple[CountRow, ...]
    scaling: Scaling
    fast: bool
    """libdeflate, the extra `fast`, is installed."""
    counter: ByteCounter
    """Compiled counter; numpy and the reason, if it cannot be built."""
    cpus: int
    """Processors that this process may use."""
    versions: dict[str, str | None]

    @property
    def passed(self) -> bool:
        """True if every count is right."""
        return self.scaling.passed and all(row.parity for row in self.rows)

    def row(self, layout: str, implementation: Implementation) -> CountRow | None:
        """Return the row of a layout and an implementation; None if it was not measured."""
        found = (row for row in self.rows if (row.layout, row.implementation) == (layout, implementation.name))
        return next(found, None)

    @property
    def place(self) -> dict[str, Any]:
        """Processor, number of processors and system."""
        return {"cpu": cpu_name(), "cpus": self.cpus, "system": platform.system()}

    def json(self) -> dict[str, Any]:
        """Return the result and the machine as JSON."""
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


def bench_histogram(settings: HistogramSettings, on_part: OnPart | None = None) -> HistogramBench:
    """Measure every layout and implementation, then memory and time over sizes, and the cache.

    Raises RunError if an implementation fails, and OSError if the temporary folder is full.
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
        if on_part is not None:
            on_part(done, parts, what)

    with tempfile.TemporaryDirectory(prefix="vaefit-bench-") as name:
        folder = Path(name)
        rows: list[CountRow] = []
        announce(0, "making grids")
        cells = make_cells(settings.grids_of_each)
        with Worker() as usual, Worker((FAST_MODULE,)) as slower:
            for done, layout in enumerate(layouts):

                def on_implementation(name: str, done: int = done, title: str = layout.title) -> None:
                    announce(done, f"{title}: {name}")

                stored = StoredLayout.write(layout, cells, folder)
                with _worker_errors(layout.title):
                    comparison = CountComparison(stored, usual, slower, counter.count is not None, on_implementation)
                    rows += comparison.rows(settings.rounds, memory_of_all=not settings.quick)
                stored.file.unlink()
        with _worker_errors("gzip-4 of growing size"):
            scaling = measure_scaling(settings.sizes, settings.rounds, folder, lambda what: announce(parts - 1, what))
    return HistogramBench(settings, tuple(rows), scaling, fast, counter, _cpus(), _versions())


@contextmanager
def _worker_errors(where: str) -> Iterator[None]:
    """Context manager: raise RunError if a worker fails."""
    try:
        yield
    except WorkerError as error:
        raise RunError("an implementation failed", where, str(error)) from error


def _cpus() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _versions() -> dict[str, str | None]:
    """Return the versions of Python, HDF5 and the packages; None for a package that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "hdf5": h5py.version.hdf5_version}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found
