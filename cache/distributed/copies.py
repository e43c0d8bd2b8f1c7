"""Copies of a dataset that the ranks of a job read, on one machine or on many: their bytes must be equal."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from ..communicator import Communicator, from_rank_zero
from ..dataset_counts import DatasetCounts, cached_counts
from ..errors import DataError
from ..hdf5.stamp import Stamps, racy, same_files
from ..shards import Data, describe, find_shards
from ..store import counts_file
from ..store.cache_key import FileState
from ..store.cached_scan import CountSettings

_LARGE = 1 << 30
"""Bytes of copies whose comparison takes so long that it is said."""

_log = logging.getLogger("vaefit")


class _Copy(NamedTuple):
    """The files of a shard as some ranks see them, where these are not the files that rank 0 counted."""

    shard: int
    stamps: Stamps
    ranks: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(stamp.size for stamp in self.stamps if stamp is not None)


def require_same_copies(
    ranks: Communicator, data: Data, counted: Sequence[DatasetCounts], cache_dir: Path | None
) -> None:
    """Raise DataError on every rank unless each rank would read from `data` the bytes that rank 0 counted.

    A file with the inode, the size and the times of rank 0's is the same file, also through a network disk, where only
    its device differs. For any other copy its digest is compared. It stands in the cached file of the copy's machine;
    without a true one there, one of the ranks that see the copy computes it and writes that file, so that no copy is
    read twice.
    """
    here, there = [str(location) for location in find_shards(data)], [str(one.location) for one in counted]
    if here != there:
        more, fewer = (next(iter(sorted(set(a) - set(b))), "none") for a, b in ((here, there), (there, here)))
        got = f"{more} only on rank {ranks.rank}, {fewer} only on rank 0"
        raise DataError("the ranks of the job name different files", got=got, do="Give every machine the same files.")
    seen = chain.from_iterable(ranks.gather([*_other_copies(counted, ranks.rank)]))
    hands = from_rank_zero(ranks, lambda: _deal(seen, ranks.size, counted))
    found = ranks.gather([(copy, _digest(counted[copy.shard], copy, cache_dir)) for copy in hands[ranks.rank]])
    from_rank_zero(ranks, lambda: _compare(counted, dict(chain.from_iterable(found))))


def require_equal(what: str, paths: Sequence[Path], seen: Mapping[int, str]) -> None:
    """Raise DataError where ranks, the keys, read `what` under these paths: their descriptions differ."""
    if len(set(seen.values())) > 1:
        got = "; ".join(f"rank {rank}: {text}" for rank, text in sorted(seen.items()))
        do = "Give every machine the same file and the same version of vaefit, then run the command again."
        raise DataError(f"the ranks of the job read {what}", describe(paths), got, do)


def describe_copy(stamps: Stamps, content: str | None) -> str:
    """Return the size and the digest of the files that a rank reads."""
    return f"{sum(stamp.size for stamp in stamps if stamp is not None):,} bytes with sha256 {content or 'unknown'}"


def _other_copies(counted: Sequence[DatasetCounts], rank: int) -> Iterator[_Copy]:
    """Yield the shards whose files are not proven to be those of rank 0."""
    for number, shard in enumerate(counted):
        if rank > 0 and shard.key is not None:
            before, now = shard.key.stamps, FileState(shard.location).stamps(shard.key.sources) or ()
            if racy(before) or len(before) != len(now) or not same_files(before, _on_device_of(before, now)):
                yield _Copy(number, tuple(stamp and replace(stamp, taken_ns=0) for stamp in now), (rank,))


def _on_device_of(before: Stamps, now: Stamps) -> Stamps:
    return tuple(b and replace(b, device=a.device) if a else b for a, b in zip(before, now, strict=True))


def _deal(seen: Iterator[_Copy], size: int, counted: Sequence[DatasetCounts]) -> list[list[_Copy]]:
    """Return the copies that each rank takes the digest of; ranks with equal stamps see one copy."""
    sharing: dict[tuple[int, Stamps], tuple[int, ...]] = {}
    for shard, stamps, own in seen:
        sharing[shard, stamps] = sharing.get((shard, stamps), ()) + own
    hands: list[list[_Copy]] = [[] for _ in range(size)]
    loads = [0] * size
    for copy in (_Copy(shard, stamps, own) for (shard, stamps), own in sharing.items()):
        reader = min(copy.ranks, key=loads.__getitem__)
        hands[reader].append(copy)
        loads[reader] += copy.size
    unlisted = [shard.location for shard in counted if shard.key is None]
    if unlisted:
        _log.warning(f"{describe(unlisted)}: its files cannot be listed, so the copies of the ranks are not compared")
    if max(loads) >= _LARGE:
        _log.warning(f"the ranks compare their copies of the data, once: up to {max(loads) / 1e9:.1f} GB for each")
    return hands


def _digest(shard: DatasetCounts, copy: _Copy, cache_dir: Path | None) -> str | None:
    """Return the digest of this rank's copy of a shard; None where it cannot be read."""
    settings, look = CountSettings(ignore_index=shard.ignore_index, cache_dir=cache_dir), FileState(shard.location)
    own = cached_counts(shard.location, settings)
    if own is not None and own.digest is not None:
        return own.digest
    assert shard.key is not None, "only files that are listed are compared"
    key = shard.key.still_true(shard.location, look)
    if key is None:
        return None if look.stamps(shard.key.sources) is None else look.content(shard.key.sources)
    counts_file.write(counts_file.CachedCounts(key, shard.described), shard.location, cache_dir, replace_newer=False)
    return key.content


def _compare(counted: Sequence[DatasetCounts], found: Mapping[_Copy, str | None]) -> None:
    """Raise DataError for the first copy that differs from rank 0's."""
    for copy, content in sorted(found.items(), key=lambda item: item[0].shard):
        shard = counted[copy.shard]
        assert shard.key is not None, "only files that are listed are compared"
        if content != shard.key.content:
            texts = {0: describe_copy(shard.key.stamps, shard.key.content)}
            texts |= dict.fromkeys(copy.ranks, describe_copy(copy.stamps, content))
            paths = shard.key.sources.paths(shard.location.file)
            require_equal("different bytes under this path", paths, texts)
