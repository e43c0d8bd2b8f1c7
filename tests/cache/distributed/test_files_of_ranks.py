"""Tests of the files that ranks read: a change during the count, and other bytes under one path."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

from tests.cache.distributed.joint_case import (
    GZIP,
    cells,
    error_of,
    forget,
    jointly,
    plain,
    shards,
    small_spans,
    write,
    written,
)
from vaefit.cache import Location, count_shards
from vaefit.cache.distributed.joint_count import JointCount
from vaefit.cache.hdf5.stamp import Stamp
from vaefit.cache.store import cache_key

DO = "Give every machine the same file and the same version of vaefit, then run the command again."


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, user_folder: Path) -> None:
    small_spans(monkeypatch)


@pytest.fixture(params=["just written", "old"])
def ages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files whose stamps may or may not hide a later write."""
    if request.param == "old":
        monkeypatch.setattr(Stamp, "racy", property(lambda _: False))


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose files rank 1 reads under the paths of the files of the same names."""
    folder = tmp_path / "copies"
    folder.mkdir()
    run = JointCount.run

    def elsewhere(self: JointCount) -> Any:
        if self.ranks.rank == 1:
            self.locations = [
                Location(folder / at.file.name, at.dataset) if (folder / at.file.name).exists() else at
                for at in self.locations
            ]
        return run(self)

    monkeypatch.setattr(JointCount, "run", elsewhere)
    return folder


def flip(file: Path, back: int = 1) -> None:
    """Change one byte near the end, which is a cell of a contiguous dataset; the size stays."""
    with file.open("r+b") as raw:
        raw.seek(-back, os.SEEK_END)
        value = raw.read(1)[0]
        raw.seek(-back, os.SEEK_END)
        raw.write(bytes([(value + 1) % 5]))


def sha(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def edited_after_reading(monkeypatch: pytest.MonkeyPatch, file: Path, shard: int, times: int) -> None:
    """Change a file as often after a rank has read its piece of the shard."""
    read, edits = JointCount._read, []

    def edit(self: JointCount, piece: Any, *rest: Any) -> Any:
        found = read(self, piece, *rest)
        if piece.shard == shard and piece.first == 0 and len(edits) < times:
            edits.append(1)
            with file.open("r+b") as raw:
                raw.seek(-1 - len(edits), os.SEEK_END)
                raw.write(b"\5")
        return found

    monkeypatch.setattr(JointCount, "_read", edit)


@pytest.mark.parametrize(
    ("ranks", "times", "use_cache", "times_show_it"),
    [(2, 1, True, True), (2, 1, True, False), (3, 1, False, True), (3, 2, True, True), (2, 2, False, True)],
)
@pytest.mark.parametrize("sizes", [(30, 31, 32), (2, 90, 2)], ids=["whole", "cut"])
def test_a_file_that_changes_meanwhile(
    sizes: tuple[int, int, int],
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
    files = shards(tmp_path, sizes)
    edited_after_reading(monkeypatch, files[1], 1, times)
    if times == 2:
        assert "train-1.h5: the data changed while it was counted, twice" in error_of(
            lambda: jointly(ranks, files, use_cache=use_cache)
        )
        return
    found = jointly(ranks, files, use_cache=use_cache)
    assert found.counts.tolist() == count_shards(files, use_cache=False).counts.tolist()
    assert said().count("train-1.h5: it changed while it was counted, so it is counted again") == 1
    assert count_shards(files).counts.tolist() == found.counts.tolist()


@pytest.mark.usefixtures("ages")
@pytest.mark.parametrize("use_cache", [True, False])
def test_ranks_that_share_a_shard_read_other_bytes(use_cache: bool, copies: Path, tmp_path: Path) -> None:
    (file,) = shards(tmp_path, [100])
    flip(Path(shutil.copy2(file, copies)))
    size = file.stat().st_size
    assert error_of(lambda: jointly(3, file, use_cache=use_cache)) == (
        f"{file}: the ranks of the job read different bytes under this path "
        f"(got rank 0: {size:,} bytes with sha256 {sha(file)}; "
        f"rank 1: {size:,} bytes with sha256 {sha(copies / file.name)}; "
        f"rank 2: {size:,} bytes with sha256 {sha(file)}). {DO}"
    )
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.usefixtures("ages")
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("other_size", [False, True])
def test_the_one_rank_that_reads_a_shard_reads_other_bytes(
    use_cache: bool, other_size: bool, copies: Path, tmp_path: Path
) -> None:
    files = shards(tmp_path, [50, 49])
    copy = Path(shutil.copy2(files[1], copies))
    if other_size:
        write(copy, cells(48))
    else:
        flip(copy)
    assert error_of(lambda: jointly(2, files, use_cache=use_cache)) == (
        f"{files[1]}: the ranks of the job read different bytes under this path "
        f"(got rank 0: {files[1].stat().st_size:,} bytes with sha256 {sha(files[1])}; "
        f"rank 1: {copy.stat().st_size:,} bytes with sha256 {sha(copy)}). {DO}"
    )
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.usefixtures("ages")
def test_another_source_of_a_virtual_dataset(copies: Path, tmp_path: Path) -> None:
    write(tmp_path / "part.hdf", cells(40))
    layout = h5py.VirtualLayout((40, 8, 8), "u1")
    layout[:] = h5py.VirtualSource("part.hdf", "grids", (40, 8, 8))
    with h5py.File(tmp_path / "virtual.h5", "w") as handle:
        handle.create_virtual_dataset("grids", layout)
    for name in ("part.hdf", "virtual.h5"):
        shutil.copy2(tmp_path / name, copies)
    assert jointly(2, tmp_path / "virtual.h5").counts.sum() == 40 * 64
    forget(tmp_path)
    flip(copies / "part.hdf")
    message = error_of(lambda: jointly(2, tmp_path / "virtual.h5"))
    assert message.startswith(f"{tmp_path}/virtual.h5, {tmp_path}/part.hdf: the ranks of the job read different bytes")
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.usefixtures("ages")
@pytest.mark.parametrize("sizes", [(50, 49), (100,), (3, 80, 5)])
def test_equal_copies_on_another_disk(sizes: tuple[int, ...], copies: Path, tmp_path: Path) -> None:
    files = shards(tmp_path, sizes, **GZIP)
    alone, expected = count_shards(files), written(tmp_path)
    forget(tmp_path)
    for file in files:
        os.utime(shutil.copy(file, copies), (1, 1))
    assert plain(jointly(2, files)) == plain(alone)
    assert written(tmp_path) == expected  # the stamps are those of the files of rank 0
    assert not list(copies.glob("*.json"))
    assert count_shards(files).source == "cache"
    for file in files:
        with h5py.File(file, "r+") as handle:
            handle["grids"][0, 0, 0] = 7
    assert int(count_shards(files).counts[7]) == len(files)


def test_a_file_that_ranks_see_alike_is_not_read_by_rank_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stamp, "racy", property(lambda _: False))
    monkeypatch.setattr(cache_key, "content_digest", lambda paths: pytest.fail(f"{paths} read by rank 0"))
    files = shards(tmp_path, [50, 49])
    found = jointly(2, files)
    assert [shard.digest for shard in found.shards] == [sha(file) for file in files]
    for file in tmp_path.glob("*.vaefit.json"):
        (source,) = json.loads(file.read_text())["sources"]
        assert source["stamp"][3] == (tmp_path / file.name.removesuffix(".vaefit.json")).stat().st_ino
