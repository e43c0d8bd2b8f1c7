"""Interface of a loader, and the function that opens the one that suits the size of the data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from vaefit.cache.communicator import Communicator, every_rank
from vaefit.cache.errors import SettingError, require, require_range
from vaefit.cache.shards import Data

from ..environment.hardware import free_memory
from ..recipe import MAX_BATCH, MAX_SEED
from .in_memory import InMemory
from .split import Role, Split
from .split_reader import SplitReader
from .streamed import Streamed

Mode = Literal["auto", "memory", "stream"]

MOST_MEMORY = 4 << 30
"""Most bytes of grids that `auto` keeps in memory, however much memory is free."""
FREE_SHARE = 4
"""The processes on a machine together take at most the free memory divided by this number in `auto` mode."""
MAX_WORKERS = 64
MAX_WINDOW = 1 << 30


class Loader(Protocol):
    """Batches of the grids of one role; each of several ranks has its own rows of every batch."""

    size: int
    """Number of grids with the role."""
    batch_size: int
    """Grids of a batch, over all ranks."""
    rows: slice
    """Rows of a batch that this rank has; all rows in a single process."""
    mode: Literal["memory", "stream"]
    """Mode in use. `auto` depends on the free memory, and the two modes give different orders, so an exact resume must
    pass this mode."""
    how: str
    """Short description for the header of a run."""
    steps: int
    """Full batches of an epoch, size // batch_size; the grids left over differ from epoch to epoch."""

    def epoch(self, epoch: int, first: int = 0) -> Iterator[NDArray[np.integer]]:
        """Yield the batches (B, H, W) of an epoch from number `first` on, in random order, no grid twice.

        Each of several ranks gets its own rows of every batch; no grid goes to two ranks. In memory, the batches are
        those of a single process for any number of ranks; streamed batches depend on that number.

        The batches depend only on the data, the split, the seed, the epoch and the settings; batch `first` is the same
        wherever the iteration starts. Each batch is a new array, of dtype uint8 unless the ignored label does not fit.
        Raises DataError as `open_loader`, and RuntimeError where a closed loader would have to read.
        """

    def in_order(self, batch_size: int) -> Iterator[NDArray[np.integer]]:
        """Yield every grid of the role once, in the order of the dataset; the last batch may be short.

        Each of several ranks gets its own consecutive part, which may be empty.
        """

    def close(self) -> None:
        """Stop the threads that read ahead, and close the files."""


@contextmanager
def open_loader(
    data: Data,
    split: Split,
    role: Role,
    batch_size: int,
    *,
    seed: int = 0,
    mode: Mode = "auto",
    memory_limit: int | None = None,
    workers: int = 2,
    window: int = 65536,
    classes: int,
    ignore_index: int | None = None,
    ranks: Communicator | None = None,
) -> Iterator[Loader]:
    """Context manager: open a loader of the grids of one role, and close it at the end.

    Args:
        split: split of these data.
        mode: `memory` reads the grids once and shuffles them fully; `stream` reads them again each epoch, and shuffles
            the stored chunks, then the grids in windows of several chunks; `auto` uses memory where the grids fit.
        memory_limit: most bytes that `auto` keeps in memory; None is 4 GiB, or a quarter of the free memory where that
            is less.
        workers: threads that read ahead, one window each. `workers` + 1 windows are in memory.
        window: grids that are shuffled together; a window ends with a block of whole chunks, and so may hold more.
        classes: labels are 0..classes-1, or `ignore_index`.
        ranks: processes that share the batches; all of them call this function with the same arguments.

    Raises SettingError for a value out of range, and where a training batch is larger than the split, so that an epoch
    has no step (other roles are read in order and may be smaller). Raises DataError for data that cannot be read and
    for a label outside the classes: at once, or in `stream` mode when the grids are read.
    """
    require_range("--batch-size", batch_size, 1, MAX_BATCH)
    require_range("--seed", seed, 0, MAX_SEED)
    require_range("--workers", workers, 1, MAX_WORKERS)
    require_range("--window", window, 1, MAX_WINDOW)
    require(mode in get_args(Mode), "--loader", mode, f"one of {', '.join(get_args(Mode))}")
    reader = SplitReader.from_split(data, split, role, classes, ignore_index)
    if role == "train" and batch_size > reader.size:
        what = f"the batch is larger than the split, which has {reader.size:,} grids to train on"
        do = f"Pass --batch-size {reader.size} or less, or leave more grids to train on."
        raise SettingError(what, "--batch-size", str(batch_size), do)
    if role == "train" and ranks is not None and batch_size < ranks.size:
        what, do = "the batch has no grid for each rank", f"Pass --batch-size {ranks.size} or more, or start fewer."
        raise SettingError(what, "--batch-size", f"{batch_size} over {ranks.size} ranks", do)
    if memory_limit is None:
        free, processes = free_memory(), 1 if ranks is None else ranks.local_size
        memory_limit = MOST_MEMORY if free is None else min(MOST_MEMORY, free // FREE_SHARE // processes)
    fits = reader.bytes <= memory_limit
    if mode == "auto" and ranks is not None:
        fits = every_rank(ranks, fits)  # all ranks use one mode
    loader: Loader
    if mode == "memory" or (mode == "auto" and fits):
        loader = InMemory(reader, batch_size, seed, ranks)
    else:
        loader = Streamed(reader, batch_size, seed, workers, window, ranks)
    try:
        yield loader
    finally:
        loader.close()
