"""Ranks that count together where one is lost, or where the data changes meanwhile."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.cache.distributed.joint_case import (
    GZIP,
    cells,
    error_of,
    forget,
    in_rounds,
    jointly,
    shards,
    small_spans,
    written,
)
from tests.ranks_as_threads import ThreadRank
from vaefit.cache import count_shards
from vaefit.cache.distributed.worker import RankScan
from vaefit.cache.scan import chunk_reader
from vaefit.cache.store import checked_json, partial_scan
from vaefit.cache.store.fingerprint import Stamp


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, user_folder: Path) -> None:
    small_spans(monkeypatch)


class Lost(ThreadRank):
    """Rank 1 is lost when the third round ends."""

    rounds = 0

    def gather(self, part: Any) -> list[Any]:
        self.rounds += isinstance(part, tuple)
        if self.rank == 1 and self.rounds == 3:
            raise MemoryError
        return super().gather(part)


def lose(data: Any, **settings: Any) -> None:
    with pytest.raises(MemoryError):
        jointly(2, data, Lost, **settings)


@pytest.mark.parametrize(("next_ranks", "old_files"), [(0, False), (0, True), (2, True), (3, False)])
def test_a_lost_job_loses_one_round(
    next_ranks: int, old_files: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    if old_files:
        monkeypatch.setattr(Stamp, "racy", property(lambda _: False))
    in_rounds(monkeypatch, 20)
    files = shards(tmp_path, [10, 12, 200], **GZIP)
    alone = count_shards(files)
    expected = written(tmp_path)
    forget(tmp_path)
    lose(files)
    assert list(written(tmp_path)) == ["train-0.h5.vaefit.json", "train-1.h5.vaefit.json"]
    checkpoint = json.loads((tmp_path / ".train-2.h5.vaefit.partial.json").read_text())["checkpoint"]
    # two rounds of two times twenty grids, less the two small shards, in whole spans
    assert checkpoint["cells"] == 64 * 56
    found = jointly(next_ranks, files) if next_ranks else count_shards(files)
    assert [shard.resumed for shard in found.shards] == [0, 0, checkpoint["cells"]]
    assert found.counts.tolist() == alone.counts.tolist()
    assert written(tmp_path) == expected
    assert not list(tmp_path.glob(".*"))
    assert not said()


@pytest.mark.parametrize("spans", [1, 7, "all"])
def test_ranks_go_on_with_what_one_process_began(spans: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_scan, "SECONDS", 0.0)
    (file,) = shards(tmp_path, [203], **GZIP)
    seen: list[int] = []

    def stop(done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == spans or done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        count_shards(file, progress=stop)
    in_rounds(monkeypatch, 20)
    found = jointly(2, file)
    assert found.shards[0].resumed == seen[-1]
    assert found.counts.tolist() == np.bincount(cells(203).reshape(-1)).tolist()
    assert jointly(2, file).source == "cache"


def test_what_was_begun_of_other_files_or_in_another_way_starts_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    in_rounds(monkeypatch, 20)
    (file,) = shards(tmp_path, [200], **GZIP)
    lose(file)
    monkeypatch.setattr(chunk_reader, "SPAN_BYTES", 1024)
    assert jointly(2, file).shards[0].resumed == 0
    assert "the partial file is of another way of reading" in said()
    forget(tmp_path)
    lose(file)
    with h5py.File(file, "r+") as handle:
        handle["grids"][0, 0, 0] = 7
    found = jointly(2, file)
    assert (found.shards[0].resumed, int(found.counts[7])) == (0, 1)
    assert "the data changed since the scan was interrupted" in said()


def test_an_edit_between_two_looks_at_what_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_rounds(monkeypatch, 20)
    (file,) = shards(tmp_path, [200], **GZIP)
    lose(file)
    own = RankScan.own

    def edit(self: RankScan, begun: Any) -> None:
        begun = list(begun)
        if begun and not edited:
            edited.append(1)
            with h5py.File(file, "r+") as handle:
                handle["grids"][0, 0, 0] = 7
        own(self, begun)

    edited: list[int] = []
    monkeypatch.setattr(RankScan, "own", edit)
    found = jointly(2, file)
    assert (found.shards[0].resumed, int(found.counts[7])) == (0, 1)
    assert count_shards(file).counts.tolist() == found.counts.tolist()


@pytest.mark.parametrize(
    ("ranks", "times", "use_cache", "times_show_it"),
    [(2, 1, True, True), (2, 1, True, False), (3, 1, False, True), (3, 2, True, True), (2, 2, False, True)],
)
def test_a_file_that_changes_meanwhile(
    ranks: int,
    times: int,
    use_cache: bool,
    times_show_it: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: Callable[[], str],
) -> None:
    if not times_show_it:  # both writes within one tick of the file system's clock
        monkeypatch.setattr(Stamp, "same_file", lambda self, other: self.size == other.size)
    files = shards(tmp_path, [30, 31, 32])
    count = RankScan.count
    edits: list[int] = []

    def edit(self: RankScan, own: Any, each: Any) -> Any:
        found = count(self, own, each)
        if any(piece.shard == 1 and piece.ends for piece in own) and len(edits) < times:
            edits.append(1)
            with files[1].open("r+b") as raw:
                raw.seek(-1 - len(edits), os.SEEK_END)
                raw.write(b"\5")
        return found

    monkeypatch.setattr(RankScan, "count", edit)
    if times == 2:
        assert "train-1.h5: the data changed while it was counted, twice" in error_of(
            lambda: jointly(ranks, files, use_cache=use_cache)
        )
        return
    found = jointly(ranks, files, use_cache=use_cache)
    assert found.counts.tolist() == count_shards(files, use_cache=False).counts.tolist()
    assert "train-1.h5: it changed while it was counted, so it is counted again" in said()
    assert count_shards(files).counts.tolist() == found.counts.tolist()


def test_a_partial_file_that_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    in_rounds(monkeypatch, 20)
    (file,) = shards(tmp_path, [200], **GZIP)
    lose(file)
    (begun,) = tmp_path.glob(".*.json")
    body = json.loads(begun.read_text())
    del body["checksum"], body["schema"]
    body["checkpoint"]["cells"] += 1
    body["checkpoint"]["counts"][1] += 1
    begun.write_bytes(checked_json.add_checksum(partial_scan.SCHEMA, body))
    found = jointly(2, file)
    assert found.shards[0].resumed == 0
    assert found.counts.tolist() == np.bincount(cells(200).reshape(-1)).tolist()
    assert "the partial file does not fit the dataset; the scan starts over" in said()


def test_no_rank_reads_a_shard_before_its_owner_has_looked_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = shards(tmp_path, [200])
    own, count, events = RankScan.own, RankScan.count, []

    def slow(self: RankScan, begun: Any) -> None:
        begun = list(begun)
        time.sleep(0.2 * len(begun))
        own(self, begun)
        events.append("looked")

    def noted(self: RankScan, pieces: Any, each: Any) -> Any:
        events.append("read")
        return count(self, pieces, each)

    monkeypatch.setattr(RankScan, "own", slow)
    monkeypatch.setattr(RankScan, "count", noted)
    jointly(2, file)
    assert events == ["looked", "looked", "read", "read"]
