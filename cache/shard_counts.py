"""The class counts of one dataset in several files: each shard counted and cached by itself, and added up."""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .communicator import Communicator, from_rank_zero
from .dataset_counts import DatasetCounts, Progress, count_dataset, stored_counts
from .distributed.count_request import CountRequest
from .errors import DataError
from .location import Location
from .shards import Data, Shape, agree, describe, find_shards, refuse_twice


@dataclass(frozen=True)
class ShardCounts:
    """Class counts of a dataset that lies in one or more files; of one alone, all it says is said of that file."""

    shards: tuple[DatasetCounts, ...]
    """One or more, in the order in which indices count through their grids."""
    counts: NDArray[np.int64]
    """(C,), cells of each class in all shards; C is that of the shard with most classes."""
    seconds: float

    @classmethod
    def from_shards(cls, shards: Sequence[DatasetCounts], seconds: float) -> ShardCounts:
        """Add up shards; DataError where their grids differ in size, or one of them is there twice."""
        agree([(shard.location, shard.shape) for shard in shards])
        # `a.h5` and `a.h5:/grids` may be one dataset, which only its name in the file tells
        refuse_twice([(shard.location, shard.dataset) for shard in shards])
        counts = np.zeros(max(shard.classes for shard in shards), dtype=np.int64)
        for shard in shards:
            counts[: shard.classes] += shard.counts
        return cls(tuple(shards), counts, seconds)

    @property
    def name(self) -> str:
        """The dataset in few words."""
        return describe([shard.location for shard in self.shards])

    @property
    def shape(self) -> Shape:
        """(N, H, W) of all shards together."""
        return (sum(shard.grids for shard in self.shards), *self.shards[0].shape[1:])

    @property
    def classes(self) -> int:
        """C."""
        return int(self.counts.size)

    @property
    def grids(self) -> int:
        """N."""
        return self.shape[0]

    @property
    def cells(self) -> int:
        """How many cells were counted."""
        return int(self.counts.sum())

    @property
    def cached(self) -> int:
        """How many shards were not scanned."""
        return sum(shard.source == "cache" for shard in self.shards)

    @property
    def source(self) -> Literal["cache", "scan"]:
        """`cache` where no shard was scanned."""
        return "cache" if self.cached == len(self.shards) else "scan"

    @property
    def cache_file(self) -> Path | None:
        """The cached file of the one shard; None where there are several, or nothing was cached."""
        return self.shards[0].cache_file if len(self.shards) == 1 else None

    @property
    def digest(self) -> str | None:
        """The digest of the one shard; of several, blake2b of theirs and their datasets' names; None if one is missing.

        No file names are in it: shards that were moved have the digest that they had.
        """
        if len(self.shards) == 1:
            return self.shards[0].digest
        digest = hashlib.blake2b(digest_size=32)
        for shard in self.shards:
            if shard.digest is None:
                return None
            digest.update(f"{shard.digest} {shard.dataset}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()


def class_counts(
    path: Data,
    use_cache: bool = True,
    classes: int | None = None,
    ignore_index: int | None = None,
    cache_dir: str | Path | None = None,
) -> NDArray[np.int64]:
    """How many cells of the whole dataset hold each class, int64 (C,).

    `path` is `file.h5`, `file.h5:/dataset`, a pattern of shards such as `train-*.h5` (see `find_shards`), or several of
    these; shards are added up. C is `classes`, else the dataset's HDF5 attribute `classes`, else the largest label + 1;
    of several shards, the largest C. With `use_cache` a cached file that is still true is believed, and a new one is
    written; without, neither is touched. Raises DataError for data that cannot be counted (see `open_grids`), for
    shards whose grids differ in size, and for the first label outside the classes, with its position.
    """
    return count_shards(path, classes, ignore_index, cache_dir, use_cache=use_cache).counts


def count_shards(
    data: Data,
    classes: int | None = None,
    ignore_index: int | None = None,
    cache_dir: str | Path | None = None,
    *,
    use_cache: bool = True,
    rebuild: bool = False,
    may_scan: bool = True,
    threads: int | None = None,
    progress: Progress | None = None,
    ranks: Communicator | None = None,
) -> ShardCounts:
    """Count a dataset as `class_counts` does, and say of each shard where its counts come from.

    Every shard has a cached file of its own, so a new shard costs the scan of that shard. C is `classes`, else the
    largest that a shard declares or holds: writers declare what they have seen, and a shard that has seen fewer classes
    holds none of the others. The other arguments are those of `count_dataset`. With `ranks` the processes of a job, all
    of which call this, count together and come to the same.
    """
    start = time.perf_counter()
    locations = from_rank_zero(ranks, lambda: find_shards(data))
    if ranks is not None:
        from .distributed.coordinator import count_jointly

        question = CountRequest(classes, ignore_index, cache_dir, use_cache, rebuild)
        with _numbered_within(len(locations)):
            together = count_jointly(locations, ranks, question, may_scan=may_scan, threads=threads, progress=progress)
        return ShardCounts.from_shards(together, time.perf_counter() - start)
    overall = _Overall(locations, progress)
    found = []
    for number, location in enumerate(locations):
        with _numbered_within(len(locations)):
            one = count_dataset(
                location,
                classes=classes,
                ignore_index=ignore_index,
                cache_dir=cache_dir,
                use_cache=use_cache,
                rebuild=rebuild,
                may_scan=may_scan,
                threads=threads,
                progress=overall.of(number),
            )
        found.append(one)
    return ShardCounts.from_shards(found, time.perf_counter() - start)


def stored_shard_counts(
    data: Data,
    classes: int | None = None,
    ignore_index: int | None = None,
    cache_dir: str | Path | None = None,
) -> ShardCounts:
    """What the cached files say, whether or not they are still true; DataError for the first shard without one."""
    locations = find_shards(data)
    found = []
    for location in locations:
        with _numbered_within(len(locations)):
            found.append(stored_counts(location, classes, ignore_index, cache_dir))
    return ShardCounts.from_shards(found, sum(shard.seconds for shard in found))


class _Overall:
    """Progress over all shards.

    Their shapes are read when the first scan begins, and a shard that does not fit ends it there, not after hours;
    counts that are all cached open no file.
    """

    def __init__(self, locations: Sequence[Location], progress: Progress | None) -> None:
        self._locations, self._progress = locations, progress
        self._before: list[int] = []

    def of(self, number: int) -> Progress | None:
        """What is told of the scan of one shard."""
        if len(self._locations) == 1:
            return self._progress

        def counting(done: int, _: int) -> None:
            self._before = self._before or self._measure()
            if self._progress is not None:
                self._progress(self._before[number] + done, self._before[-1])

        return counting

    def _measure(self) -> list[int]:
        """How many cells lie before each shard, and last how many in all."""
        from .hdf5.dataset import open_grids

        shapes: list[Shape] = []
        for location in self._locations:
            with open_grids(location) as dataset:
                shapes.append(dataset.shape)
        agree(zip(self._locations, shapes, strict=True))
        return list(accumulate(map(math.prod, shapes), initial=0))


@contextmanager
def _numbered_within(shards: int) -> Iterator[None]:
    """Add to an error about a grid that its index is that in the shard, which the error names."""
    try:
        yield
    except DataError as error:
        if shards == 1 or not re.search(r"\bgrids? \d", error.what):
            raise
        do = f"{error.do} Grids are numbered within the shard."
        raise DataError(error.what, error.where, error.got, do) from error
