"""Speed of the loaders on HDF5, against the speed of the training step.

Each layout is loaded from memory, and streamed by one and by two workers, each time in a fresh process; files are in
the page cache. The first grids of every loader are compared with those of h5py: if they differ, nothing is timed. The
step is that of the check with Adam, the fastest; it is timed in this process, on one thread, or on a GPU as a CUDA
graph.
"""

from __future__ import annotations

import platform
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from vaefit.cache import count_shards
from vaefit.cache.errors import require_range
from vaefit.cache.hdf5.grids import opened
from vaefit.vae import RECIPES, BetaVAE
from vaefit.vae.environment.device import choose_device, known_device
from vaefit.vae.environment.hardware import cpu_name
from vaefit.vae.loader import open_loader
from vaefit.vae.loader.loader import Mode
from vaefit.vae.recipe import MAX_BATCH

from ..counting.layouts import BY_NAME, CLASSES, make_cells
from ..step.loops import Problem, device_steps, ours
from ..threads import cpu_threads
from .epoch import epoch_over_steps
from .worker import Load, Loaded, digest, load_apart

LAYOUTS = ("contiguous", "gzip", "gzip-columns")
WAYS: tuple[tuple[str, Mode, int], ...] = (
    ("memory", "memory", 1),
    ("stream, 1 worker", "stream", 1),
    ("stream, 2 workers", "stream", 2),
)
LEAST_GRIDS = 64
MOST_GRIDS = 1 << 24


@dataclass(frozen=True)
class LoaderSettings:
    """Settings of `vaefit-cli bench loader`; SettingError for a value that is wrong by itself."""

    grids: int | None = None
    """Grids of each layout; None is 1,048,576, with `quick` 131,072."""
    batch_size: int = 128
    device: str = "cpu"
    """Device of the step."""
    quick: bool = False
    """One short round of each loader."""

    def __post_init__(self) -> None:
        if self.grids is not None:
            require_range("--grids", self.grids, LEAST_GRIDS, MOST_GRIDS)
        require_range("--batch-size", self.batch_size, 1, MAX_BATCH)
        known_device(self.device)

    @property
    def grids_of_each(self) -> int:
        """Grids of each layout; the default fills at least one row of the longest chunks."""
        return self.grids or (1 << 17 if self.quick else 1 << 20)

    @property
    def rounds(self) -> int:
        """Processes of each loader."""
        return 1 if self.quick else 3

    @property
    def seconds(self) -> float:
        """Seconds for which each process loads."""
        return 0.3 if self.quick else 2.0


@dataclass(frozen=True)
class LoaderRow:
    """One loader on one dataset: medians over the rounds; `low` and `high` are the slowest and the fastest round."""

    layout: str
    way: str
    parity: bool
    first_s: float | None = None
    speed: float | None = None
    """Grids per second."""
    low: float | None = None
    high: float | None = None
    cpu_us: float | None = None
    peak_bytes: int | None = None
    over_step: float | None = None
    """Speed of the loader over that of the step."""


@dataclass(frozen=True)
class LoaderBench:
    """Result of `vaefit-cli bench loader`."""

    rows: tuple[LoaderRow, ...]
    batch: tuple[int, ...]
    """B, H, W of the step."""
    step_speed: float
    """Grids per second of the step."""
    device: str
    """Name of the step's device."""
    grids: int
    epoch_over_steps: float
    """CPU time of an epoch, loaded from memory, over that of its bare steps; validation is left out."""

    @property
    def passed(self) -> bool:
        """True if every loader gives the right grids."""
        return all(row.parity for row in self.rows)

    def json(self) -> dict[str, Any]:
        """Return the result and the machine as JSON."""
        return {
            "machine": {"cpu": cpu_name(), "system": platform.system()},
            "versions": {"python": platform.python_version(), "numpy": np.__version__, "h5py": h5py.__version__},
            "parity": self.passed,
            "grids": self.grids,
            "batch": list(self.batch),
            "step": {"device": self.device, "grids_a_second": self.step_speed},
            "epoch_over_steps": self.epoch_over_steps,
            "rows": [asdict(row) for row in self.rows],
        }


def bench_loader(
    data: Path | str | None, settings: LoaderSettings, on_part: Callable[[int, int, str], None] | None = None
) -> LoaderBench:
    """Measure every loader on `data`, or, without data, on grids stored in each of the layouts.

    `on_part` is called before each part with the number of parts done, the number of all parts, and its name. Raises
    DataError for data that cannot be read or whose labels are no classes, SettingError for a batch that is larger than
    the dataset.
    """
    rows: list[LoaderRow] = []
    datasets = 1 if data is not None else len(LAYOUTS)
    parts = datasets * settings.rounds * len(WAYS) + 1

    def announce(done: int, what: str) -> None:
        if on_part is not None:
            on_part(done, parts, what)

    announce(0, "writing the grids")
    for number, (layout, load) in enumerate(_loads(data, settings)):
        if not number:
            announce(0, "the step")
            batch, speed, where = _step(load, settings)
            epoch = epoch_over_steps(load, 3 if settings.quick else 60, settings.rounds)
        done = 1 + number * settings.rounds * len(WAYS)
        rows += _compare(layout, load, settings.rounds, done, announce)
    timed = tuple(row if row.speed is None else replace(row, over_step=row.speed / speed) for row in rows)
    return LoaderBench(timed, batch, speed, where, load.grids, epoch)


def _loads(data: Path | str | None, settings: LoaderSettings) -> Iterator[tuple[str, Load]]:
    """Yield the name and the loading task of each dataset; a file written here is removed before the next."""
    rest: dict[str, Any] = {"batch_size": settings.batch_size, "seconds": settings.seconds}
    if data is not None:
        counts = count_shards(data)
        yield counts.name, Load(str(data), counts.grids, counts.classes, mode="memory", workers=1, **rest)
        return
    cells = make_cells(settings.grids_of_each)
    with tempfile.TemporaryDirectory(prefix="vaefit-bench-") as folder:
        for name in LAYOUTS:
            file = Path(folder) / f"{name}.h5"
            BY_NAME[name].write(cells, file)
            yield BY_NAME[name].title, Load(str(file), len(cells), CLASSES, mode="memory", workers=1, **rest)
            file.unlink()


def _compare(layout: str, load: Load, rounds: int, done: int, announce: Callable[[int, str], None]) -> list[LoaderRow]:
    """Return the rows of all loaders, run in turns; if one gives other grids than h5py, none is timed."""
    wanted = digest(_h5py_blocks(load))
    found: dict[str, list[Loaded]] = {way: [] for way, _, _ in WAYS}
    for number in range(rounds):
        for place, (way, mode, workers) in enumerate(WAYS):
            announce(done + number * len(WAYS) + place, f"{layout}: {way}")
            found[way].append(load_apart(replace(load, mode=mode, workers=workers)))
    right = {way: all(one.digest == wanted for one in loaded) for way, loaded in found.items()}
    if not all(right.values()):
        return [LoaderRow(layout, way, right[way]) for way in found]
    return [_row(layout, way, loaded) for way, loaded in found.items()]


def _row(layout: str, way: str, loaded: list[Loaded]) -> LoaderRow:
    speeds = [one.speed for one in loaded]
    peaks = [one.peak_bytes for one in loaded if one.peak_bytes is not None]
    return LoaderRow(
        layout,
        way,
        parity=True,
        first_s=statistics.median(one.first_s for one in loaded),
        speed=statistics.median(speeds),
        low=min(speeds),
        high=max(speeds),
        cpu_us=statistics.median(one.cpu_us for one in loaded),
        peak_bytes=max(peaks, default=None),
    )


def _h5py_blocks(load: Load) -> Iterator[np.ndarray[Any, np.dtype[np.integer]]]:
    """Yield the training grids block by block, as h5py reads them."""
    with opened(load.data) as grids:
        for first, block in grids.blocks():
            yield block[load.split.roles(first, first + len(block)) == 0]


def _step(load: Load, settings: LoaderSettings) -> tuple[tuple[int, ...], float, str]:
    """Return (B, H, W) of a batch of the dataset, the grids per second of a step on it, and the device's name."""
    with open_loader(load.data, load.split, "train", load.batch_size, mode="stream", classes=load.classes) as loader:
        batch = torch.from_numpy(next(loader.epoch(0)).astype(np.int64))
    size, height, width = batch.shape
    device = choose_device(settings.device)
    steps = 5 if settings.quick else 30
    with cpu_threads(1):
        problem = Problem(BetaVAE(load.classes, height, width), batch, torch.ones(load.classes))
        if device.type == "cuda":
            seconds = device_steps(problem.on(device), steps, RECIPES["adam"], graph=True, compiled=False)
            where = f"{torch.cuda.get_device_name(device)}, as a CUDA graph"
        else:
            seconds = ours(problem, RECIPES["adam"], steps)[1]
            where = f"{cpu_name()}, 1 thread"
    return (size, height, width), size / statistics.median(seconds), where
