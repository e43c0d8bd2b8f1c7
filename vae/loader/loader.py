"""From a dataset in HDF5 to batches: opening a loader, by the way that suits the size of the data."""

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
from .in_memory import InMemory
from .rank_share import Share
from .split import MAX_SEED, Role, Split
from .split_reader import Source
from .streamed import Streamed

Mode = Literal["auto", "memory", "stream"]

MOST_MEMORY = 4 << 30
"""Bytes of grids from which on they are streamed, however much memory is free."""
FREE_SHARE = 4
"""One part in so many of the free memory is taken at most."""
MAX_WORKERS = 64
MAX_BATCH = 1 << 20
MAX_WINDOW = 1 << 30


class Loader(Protocol):
    """Batches of the grids of one role; of several ranks each has rows of its own of every batch."""

    size: int
    """How many grids have the role."""
    batch_size: int
    """Grids of a batch, those of all ranks."""
    rows: slice
    """Which of them are this rank's; all, for a process by itself."""
    mode: Literal["memory", "stream"]
    """What `auto` has become: it depends on the memory that is free, and the orders of the two differ, so that a run
    which is to be resumed exactly asks for this one."""
    how: str
    """In a few words, for the header of a run."""
    steps: int
    """Full batches of an epoch, size // batch_size; what is left over waits for the order of the next epoch."""

    def epoch(self, epoch: int, first: int = 0) -> Iterator[NDArray[np.integer]]:
        """Yield the batches (B, H, W) of an epoch from number `first` on, in random order, no grid twice.

        Of several ranks each is given its rows of every batch, and no grid is given to two. From memory the batches are
        those of a process by itself, whatever the number of ranks; what is streamed is dealt out by it.

        They follow from the data, the split, the seed, the epoch and the settings alone: from any `first` they are
        those that the whole epoch has from there. Each is an array of its own; uint8, but where the ignored label does
        not fit. DataError as `open_loader`, RuntimeError where a loader that was closed would have to read.
        """

    def in_order(self, batch_size: int) -> Iterator[NDArray[np.integer]]:
        """Yield every grid of the role once, in the order of the dataset; the last batch may be short.

        Of several ranks each is given a stretch of its own, which may be empty.
        """

    def close(self) -> None:
        """Stop whatever reads ahead, and close the files."""


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
    """The grids of one role, for as long as they are needed.

    Args:
        split: of these data.
        mode: `memory` reads them once and shuffles them fully; `stream` reads them again each epoch, and shuffles the
            stored chunks, then the grids in windows of several chunks; `auto` takes memory where they fit into it.
        memory_limit: bytes that `auto` puts into memory at most; None is 4 GiB, or a quarter of the free memory where
            that is less.
        workers: threads that read ahead, each a window. Memory is that of `workers` + 1 windows.
        window: grids that are shuffled together; a window ends with a block of whole chunks, and so may hold more.
        classes: labels are 0..classes-1, or `ignore_index`.
        ranks: the processes that share the batches; all of them call this, with the same arguments.

    Raises SettingError for a value that is wrong by itself, and where a batch to train on is larger than the split,
    which gives no step; the grids of the other roles may be fewer, for they are taken in order. DataError for data that
    cannot be read, and for a label outside the classes: when this is opened, or, of what is streamed, when it is read.
    """
    require_range("--batch-size", batch_size, 1, MAX_BATCH)
    require_range("--seed", seed, 0, MAX_SEED)
    require_range("--workers", workers, 1, MAX_WORKERS)
    require_range("--window", window, 1, MAX_WINDOW)
    require(mode in get_args(Mode), "--loader", mode, f"one of {', '.join(get_args(Mode))}")
    source = Source.from_split(data, split, role, classes, ignore_index)
    if role == "train" and batch_size > source.size:
        raise SettingError(
            f"the batch is larger than the split, which has {source.size:,} grids to train on",
            "--batch-size",
            str(batch_size),
            f"Pass --batch-size {source.size} or less, or leave more grids to train on.",
        )
    share = Share.from_communicator(ranks)
    if role == "train" and batch_size < share.ranks:
        what, do = "the batch has no grid for each rank", f"Pass --batch-size {share.ranks} or more, or start fewer."
        raise SettingError(what, "--batch-size", f"{batch_size} over {share.ranks} ranks", do)
    fits = source.bytes <= _most(memory_limit, 1 if ranks is None else ranks.local_size)
    if mode == "auto" and ranks is not None:
        fits = every_rank(ranks, fits)  # what one takes, all do
    loader: Loader
    if mode == "memory" or (mode == "auto" and fits):
        loader = InMemory(source, batch_size, seed, share)
    else:
        loader = Streamed(source, batch_size, seed, workers, window, share)
    try:
        yield loader
    finally:
        loader.close()


def _most(limit: int | None, processes: int) -> int:
    """Bytes of grids that each of so many processes on this machine may have in memory."""
    if limit is not None:
        return limit
    free = free_memory()
    return MOST_MEMORY if free is None else min(MOST_MEMORY, free // FREE_SHARE // processes)
