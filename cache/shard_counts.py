"""Class counts of one dataset in several files: each shard is counted and cached by itself, and all are added up."""

from __future__ import annotations

import hashlib
import logging
import math
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .communicator import Communicator, from_rank_zero
from .dataset_counts import ClassCounts, DatasetCounts, Progress, cached_counts, count_location, stored_counts
from .errors import DataError, require_range
from .hdf5.blocks import MAX_LABELS
from .hdf5.open_files import flush_writers
from .label_notes import gap_notes, unwritten_note
from .location import Location
from .shards import Data, Shape, agree, describe, find_shards, refuse_twice
from .store.cached_scan import CountSettings

_log = logging.getLogger("vaefit")


@dataclass(frozen=True)
class ShardCounts(ClassCounts):
    """Class counts of a dataset in one or more files; C is that of the shard with most classes."""

    shards: tuple[DatasetCounts, ...]
    """Counts of the shards, at least one, in the order in which indices count through their grids."""
    ignore_index: int | None
    """The label whose cells are not counted: the caller's, else the one that an attribute of the files declares."""

    @classmethod
    def from_shards(cls, shards: Sequence[DatasetCounts], seconds: float) -> ShardCounts:
        """Add up shards; DataError where their grids differ in size, or one of them is there twice."""
        agree([(shard.location, shard.shape) for shard in shards])
        # `a.h5` and `a.h5:/grids` may be one dataset, which only its name in the file tells
        refuse_twice([(shard.location, shard.dataset) for shard in shards])
        counts = np.zeros(max(shard.classes for shard in shards), dtype=np.int64)
        for shard in shards:
            counts[: shard.classes] += shard.counts
        shape = (sum(shard.grids for shard in shards), *shards[0].shape[1:])
        return cls(counts, shape, seconds, tuple(shards), _agreed_ignore(shards))

    @property
    def name(self) -> str:
        """The name of the shard, or the first and the last of many."""
        return describe([shard.location for shard in self.shards])

    @property
    def dataset(self) -> str | None:
        """The path of the dataset in its file, `/labels`; None where the shards have different ones."""
        names = {f"/{shard.dataset}" for shard in self.shards}
        return names.pop() if len(names) == 1 else None

    @property
    def passed_over(self) -> tuple[str, ...]:
        """Paths of the other datasets of the files, where the caller named none."""
        return tuple(dict.fromkeys(name for shard in self.shards for name in shard.described.passed_over))

    @property
    def cached(self) -> int:
        """The number of shards that were not scanned."""
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
        """The digest of the one shard; of several, blake2b of their digests and datasets' names; None if one lacks it.

        It holds no file names: shards that were moved keep their digest.
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
    data: Data,
    *,
    classes: int | None = None,
    ignore_index: int | None = None,
    use_cache: bool = True,
    cache_dir: str | Path | None = None,
) -> NDArray[np.int64]:
    """Return how many cells of the whole dataset hold each class, int64 (C,).

    `data` is `file.h5`, `file.h5:/dataset`, a pattern of shards such as `train-*.h5` (see `find_shards`), or several of
    these; shards are added up. C is `classes`, else the HDF5 attribute `classes` of the dataset or its file, else the
    largest label + 1; of several shards, the largest C. Without `ignore_index` the attributes `ignore_index` and
    `_FillValue` are honoured. With `use_cache` a cached file that is still true is believed, and a new one is
    written; without, neither is touched. Raises DataError for data that cannot be counted (see `open_grids`), for
    shards whose grids differ in size, and for the first label outside the classes, with its position.
    """
    return count_shards(
        data, classes=classes, ignore_index=ignore_index, use_cache=use_cache, cache_dir=cache_dir
    ).counts


def count_shards(
    data: Data,
    *,
    classes: int | None = None,
    ignore_index: int | None = None,
    cache_dir: str | Path | None = None,
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
    holds none of the others. The other arguments are those of `count_dataset`.

    `ranks` are the processes of a job, all of which call this with equal arguments: they count together and return the
    same. Their `threads` are by default the processors of the machine divided by its ranks, at most four. A file that
    the ranks count must have the same bytes on every machine; DataError on every rank where it does not.
    """
    start = time.perf_counter()
    locations = from_rank_zero(ranks, lambda: find_shards(data))
    settings = CountSettings(classes, ignore_index, cache_dir, use_cache, rebuild, may_scan, threads)
    if ranks is not None:
        from .distributed.joint_count import JointCount
        from .scan import default_threads

        if classes is not None:
            require_range("--classes", classes, 1, MAX_LABELS)
        flush_writers()  # before a file is stamped
        if threads is None:
            settings = replace(settings, threads=default_threads(ranks.local_size))
        with _numbered_within(len(locations)):
            answers = from_rank_zero(ranks, lambda: [cached_counts(location, settings) for location in locations])
            found = JointCount(ranks, locations, answers, settings, progress).run()
        return from_rank_zero(ranks, lambda: _added_up(found, settings, start))
    with _numbered_within(len(locations)):
        reports = _progress_of_shards(locations, progress)
        found = [count_location(one, settings, report) for one, report in zip(locations, reports, strict=True)]
    return _added_up(found, settings, start)


def _added_up(shards: Sequence[DatasetCounts], settings: CountSettings, start: float) -> ShardCounts:
    """Add up the shards, and log the notes on their labels."""
    found = ShardCounts.from_shards(shards, time.perf_counter() - start)
    for note in _notes(found, settings):
        _log.warning(note)
    return found


def _notes(found: ShardCounts, settings: CountSettings) -> Iterator[str]:
    """Yield what is to be said of the labels."""
    first, where = found.shards[0].described, found.name
    if first.stored_shape != first.shape:
        yield f"{where}: shape {first.stored_shape} is read as {first.shape}, without the axis of length 1"
    ignored = math.prod(found.shape) - found.cells
    if settings.ignore_index is None and ignored:
        said = f"the attribute `{first.ignore_attribute}` says that label {found.ignore_index} is ignored"
        yield f"{where}: {said}, {ignored:,} cells; --ignore-index replaces it"
    parts = [shard.described.unwritten for shard in found.shards if shard.described.unwritten is not None]
    if parts:
        yield unwritten_note(parts, math.prod(found.shape), where)
    if settings.classes is None and not any(shard.described.declared_classes for shard in found.shards):
        yield from gap_notes(np.flatnonzero(found.counts), found.classes, where)


def _agreed_ignore(shards: Sequence[DatasetCounts]) -> int | None:
    """Return the ignored label of all shards; DataError where their attributes declare different ones."""
    first = shards[0]
    for shard in shards:
        if shard.ignore_index != first.ignore_index:
            got = f"{shard.ignore_index}, where {first.location} has {first.ignore_index}"
            do = f"Pass --ignore-index {first.ignore_index if shard.ignore_index is None else shard.ignore_index}."
            raise DataError("the shards of one dataset ignore one label", str(shard.location), got, do)
    return first.ignore_index


def stored_shard_counts(
    data: Data, classes: int | None = None, ignore_index: int | None = None, cache_dir: str | Path | None = None
) -> ShardCounts:
    """Return what the cached files say, true or not; DataError for the first shard without one."""
    locations = find_shards(data)
    with _numbered_within(len(locations)):
        found = [stored_counts(location, classes, ignore_index, cache_dir) for location in locations]
    return ShardCounts.from_shards(found, sum(shard.seconds for shard in found))


def _progress_of_shards(locations: Sequence[Location], progress: Progress | None) -> Sequence[Progress | None]:
    """Return the callback for the scan of each shard, which reports the progress over all shards.

    The shapes are read when the first scan begins, so that a shard of another shape is an error then, not after hours.
    Where all counts are cached no file is opened.
    """
    if len(locations) == 1:
        return [progress]

    @cache
    def before() -> list[int]:
        """Return the number of cells before each shard, and last the number of all cells."""
        from .hdf5.dataset import open_grids

        shapes: list[Shape] = []
        for location in locations:
            with open_grids(location) as dataset:
                shapes.append(dataset.shape)
        agree(zip(locations, shapes, strict=True))
        return list(accumulate(map(math.prod, shapes), initial=0))

    def report(number: int, done: int, _: int) -> None:
        cells = before()
        if progress is not None:
            progress(cells[number] + done, cells[-1])

    return [partial(report, number) for number in range(len(locations))]


@contextmanager
def _numbered_within(shards: int) -> Iterator[None]:
    """Add to an error about a grid that its index counts within the shard."""
    try:
        yield
    except DataError as error:
        if shards == 1 or not re.search(r"\bgrids? \d", error.what):
            raise
        do = f"{error.do} Grids are numbered within the shard."
        raise DataError(error.what, error.where, error.got, do) from error
