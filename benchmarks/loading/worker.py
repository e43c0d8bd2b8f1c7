"""Worker process that loads batches and reports the cost.

It imports neither torch nor a model, so that its memory is that of loading. `python -m
vaefit.benchmarks.loading.worker` takes a loading task as its argument, a JSON object, and prints another on stdout.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Generator, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaefit.vae.errors import RunError
from vaefit.vae.loader import Loader, SeededSplit, open_loader
from vaefit.vae.loader.loader import Mode

from ..counting.worker import peak_memory

VAL_SHARE = 0.05
PARITY_GRIDS = 1 << 15
"""Number of grids that are compared with those of h5py."""


@dataclass(frozen=True)
class Load:
    """Loading task: dataset, loader and time."""

    data: str
    grids: int
    """N of the dataset."""
    classes: int
    batch_size: int
    mode: Mode
    workers: int
    seconds: float
    """Epochs are loaded one after another for this time."""

    @property
    def split(self) -> SeededSplit:
        """Split of the grids; the training grids are loaded."""
        return SeededSplit(self.grids, VAL_SHARE)


@dataclass(frozen=True)
class Loaded:
    """Cost of a loading task."""

    first_s: float
    """Seconds from opening the dataset to the first batch."""
    speed: float
    """Grids per second of wall time after the first batch."""
    cpu_us: float
    """CPU time of all threads per grid after the first batch."""
    peak_bytes: int | None
    """Peak memory above that of the process after its imports; None if the system does not report it."""
    digest: str
    """Digest of the first grids, in the order of the dataset."""
    how: str


def digest(batches: Iterable[NDArray[np.integer]]) -> str:
    """Return the sha256 of the first PARITY_GRIDS grids, or of all if there are fewer."""
    found, left = hashlib.sha256(), PARITY_GRIDS
    for batch in batches:
        found.update(np.ascontiguousarray(batch[:left].astype(np.uint8, copy=False)).tobytes())
        left -= len(batch[:left])
        if not left:
            break
    return found.hexdigest()


def load_apart(load: Load) -> Loaded:
    """Load in a fresh process; RunError if that fails."""
    command = [sys.executable, "-m", "vaefit.benchmarks.loading.worker", json.dumps(asdict(load))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        got = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise RunError("a measured process failed", f"{load.mode}, {load.data}", got)
    answer: dict[str, Any] = json.loads(done.stdout)
    return Loaded(**answer)


def load_here(load: Load) -> Loaded:
    """Load in this process; its memory at the start counts as that of the imports."""
    before, begun = peak_memory(), time.perf_counter()
    settings = {"mode": load.mode, "workers": load.workers, "classes": load.classes}
    with open_loader(load.data, load.split, "train", load.batch_size, **settings) as loader:  # type: ignore[arg-type]
        batches = _endless(loader)
        next(batches)
        wall, cpu = time.perf_counter(), time.process_time()
        loaded = 0
        while (spent := time.perf_counter() - wall) < load.seconds or not loaded:
            loaded += len(next(batches))
        cpu = time.process_time() - cpu
        batches.close()
        peak = peak_memory()
        seen = digest(loader.in_order(load.batch_size))
        extra = None if peak is None or before is None else peak - before
        return Loaded(wall - begun, loaded / spent, 1e6 * cpu / loaded, extra, seen, loader.how)


def _endless(loader: Loader) -> Generator[NDArray[np.integer], None, None]:
    """Yield the batches of one epoch after another."""
    for epoch in itertools.count():
        yield from loader.epoch(epoch)


if __name__ == "__main__":
    print(json.dumps(asdict(load_here(Load(**json.loads(sys.argv[1]))))))
