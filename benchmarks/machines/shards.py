"""What a shard costs whatever its size: on rank 0, which looks up and writes for all of them, and on its owner."""

from __future__ import annotations

import os
import pickle
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vaefit.cache import store
from vaefit.cache.atomic import write_atomically
from vaefit.cache.dataset import open_grids
from vaefit.cache.description import Description
from vaefit.cache.ledger import Ledger
from vaefit.cache.location import Location
from vaefit.cache.question import Question
from vaefit.cache.rank_scan import COLUMNS, Reading, Report
from vaefit.cache.shards import find_shards
from vaefit.cache.watch import Watch

from ..counting.layouts import GZIP, SIDE
from ..counting.scaling import NOT_RACY_SECONDS
from .figures import Measured, ShardFigures

GRIDS = 64
"""Of a shard here: what is measured does not depend on them."""
NAME = "shard-{:05}.h5"


@dataclass(frozen=True)
class _Folder:
    """Shards in a folder, and files beside them that are only there."""

    path: Path
    locations: tuple[Location, ...]

    @classmethod
    def write(cls, path: Path, shards: int, others: int) -> _Folder:
        path.mkdir()
        for number in range(others):
            (path / f"other-{number:05}.h5").touch()
        cells = np.zeros((GRIDS, SIDE, SIDE), np.uint8)
        files = [path / NAME.format(number) for number in range(shards)]
        for file in files:
            with h5py.File(file, "w") as handle:
                handle.create_dataset("grids", data=cells, chunks=cells.shape, **GZIP)
        return cls(path, tuple(map(Location, files)))


class _Turns:
    """Milliseconds a shard of each part, of every turn: of CPU, and on the wall."""

    def __init__(self, shards: int) -> None:
        self._shards = shards
        self._cpu: defaultdict[str, list[float]] = defaultdict(list)
        self._wall: defaultdict[str, list[float]] = defaultdict(list)
        self._start = 0.0, 0.0

    def begin(self) -> None:
        if hasattr(os, "sync"):
            os.sync()  # what earlier parts left to be written is not this one's
        self._start = time.process_time(), time.perf_counter()

    def end(self, part: str, shards: int | None = None) -> None:
        now = time.process_time(), time.perf_counter()
        for kept, start, end in zip((self._cpu, self._wall), self._start, now, strict=True):
            kept[part].append(1e3 * (end - start) / (shards or self._shards))

    def cpu(self, part: str) -> Measured:
        return Measured.of(self._cpu[part])

    def wall(self, part: str) -> Measured:
        return Measured.of(self._wall[part])


def measure_shards(folder: Path, shards: int, entries: int, rounds: int) -> ShardFigures:
    """Take so many shards through a count, without the counting, in a folder of `entries` files and in one of few."""
    many = _Folder.write(folder / "many", shards, entries - shards)
    few = _Folder.write(folder / "few", shards, 0)
    time.sleep(NOT_RACY_SECONDS)  # what was just written is looked at byte by byte
    in_many, in_few = _Turns(shards), _Turns(shards)
    size = _one_count(few, _Turns(shards))  # with what is imported and allocated once
    for _ in range(rounds):
        for place, turns in ((many, in_many), (few, in_few)):
            _one_count(place, turns)
        _writes(few, in_few)
    return ShardFigures(
        entries,
        **{name: in_many.cpu(name) for name in ("listed", "hit", "missed", "begun", "owned")},
        closed=in_many.wall("closed"),
        closed_cpu=in_many.cpu("closed"),
        closed_alone=in_few.wall("closed"),
        written=in_few.wall("written"),
        unsynced=in_few.wall("unsynced"),
        described_bytes=size,
    )


def _one_count(folder: _Folder, turns: _Turns) -> float:
    """One count of all shards, none of them cached, and a look-up of all; bytes that rank 0 shares of each."""
    for location in folder.locations:
        location.file.with_name(f"{location.file.name}.vaefit.json").unlink(missing_ok=True)
    turns.begin()
    found = find_shards(folder.path / "*.h5")
    turns.end("listed", len(found))
    locations, whole = folder.locations, GRIDS * SIDE * SIDE
    ledger = Ledger(locations, Question(), 1)
    turns.begin()
    ledger.look_up(may_scan=True)
    turns.end("missed")
    turns.begin()
    work = ledger.begin(dict.fromkeys(range(len(locations)), ((GRIDS, SIDE, SIDE), 1)))
    turns.end("begun")
    reports = _own(locations, turns)
    numbers = {shard: np.zeros(COLUMNS, np.int64) for shard in range(len(locations))}
    for counts in numbers.values():
        counts[0] = counts[-1] = whole
    readings = [Reading(shard, "chunks/1", "chunks", "of no importance", 1) for shard in numbers]
    turns.begin()
    ledger.close_round(numbers, [(readings, reports)], {piece.shard: piece for piece in work})
    turns.end("closed")
    answers = [ledger.answers[shard] for shard in numbers]
    again = Ledger(locations, Question(), 1)
    turns.begin()
    left = again.look_up(may_scan=False)
    turns.end("hit")
    assert not left  # what was just written answers
    return sum(pickled(part) for part in (locations, work, answers))


def _own(locations: Sequence[Location], turns: _Turns) -> list[Report]:
    """What the owner of each shard finds."""
    reports = []
    turns.begin()
    for shard, location in enumerate(locations):
        reports.append(own(shard, location))
    turns.end("owned")
    return reports


def own(shard: int, location: Location) -> Report:
    """What the owner of a shard finds; the digest is that of a small file."""
    watch = Watch.begin(location)
    with open_grids(location) as dataset:
        described = Description.of(dataset, location, None)
    content = watch.content()
    return Report(0, shard, watch.key, "", described, watch.changed(content), content, watch.doubt(described, content))


def _writes(folder: _Folder, turns: _Turns) -> None:
    """The cached files once more, by the whole way that they are written, and only their bytes without an fsync."""
    paths = [location.file.with_name(f"{location.file.name}.vaefit.json") for location in folder.locations]
    entries = [store.read(path) for path in paths]
    texts = [path.read_bytes() for path in paths]
    turns.begin()
    for entry, location in zip(entries, folder.locations, strict=True):
        assert entry is not None  # it was just written
        store.write(entry, location, None, replace_newer=False)
    turns.end("written")
    turns.begin()
    for path, text in zip(paths, texts, strict=True):
        write_atomically(path, text, durable=False)
    turns.end("unsynced")


def pickled(parts: Sequence[Any]) -> float:
    """Bytes of one of the parts, pickled together."""
    return len(pickle.dumps(list(parts))) / len(parts)
