"""Tests that ranks which read a dataset by themselves prove that they read the bytes that rank 0 counted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import pytest

from tests.cache.distributed.joint_case import cells, error_of, shards, write
from tests.cache.distributed.test_files_of_ranks import DO, flip, sha
from tests.ranks_as_threads import together
from vaefit.cache import Location, count_shards
from vaefit.cache.distributed.copies import require_same_copies
from vaefit.cache.hdf5.stamp import Stamp
from vaefit.cache.store import cache_key


@pytest.fixture(autouse=True)
def folders(user_folder: Path) -> None:
    """A user's cache folder of its own."""


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were written long ago, so that equal stamps prove that they are the same."""
    monkeypatch.setattr(Stamp, "racy", property(lambda _: False))


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose digest was computed, for the comparison of cached counts and of copies."""
    found: list[Path] = []
    digest = cache_key.content_digest

    def noted(paths: list[Path]) -> str:
        found.extend(paths)
        return digest(paths)

    monkeypatch.setattr(cache_key, "content_digest", noted)
    return found


def compared(size: int, files: list[Path], copies: Path | None = None) -> None:
    """Count in one process, then compare: the last rank, or all but rank 0, see the files in the folder `copies`."""

    def one(ranks: Any) -> None:
        counted, data = count_shards(files).shards if ranks.rank == 0 else None, files
        counted = ranks.share(counted)
        if copies is not None and ranks.rank > 0:
            data = [copies / file.name for file in files]
            counted = [replace(c, location=Location(copies / c.location.file.name)) for c in counted]
        require_same_copies(ranks, data, counted, None)

    together(size, one)


def copied(files: list[Path], folder: Path) -> Path:
    """Return a folder with copies, as of the local disk of another machine; they are other files with equal bytes."""
    folder.mkdir()
    for file in files:
        shutil.copy2(file, folder)
    return folder


@pytest.mark.usefixtures("old")
def test_the_same_files_are_not_read(tmp_path: Path, hashed: list[Path]) -> None:
    compared(3, shards(tmp_path, [30, 20, 5]))
    assert hashed == []


@pytest.mark.usefixtures("old")
def test_a_network_disk_has_another_device(tmp_path: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    files = shards(tmp_path, [30])
    count_shards(files)
    honest = Stamp.from_path.__func__  # type: ignore[attr-defined]

    def elsewhere(cls: type[Stamp], path: Path) -> Stamp:
        return replace(honest(cls, path), device=99)

    def one(ranks: Any) -> None:
        counted = ranks.share(count_shards(files).shards if ranks.rank == 0 else None)
        if ranks.rank == 0:
            monkeypatch.setattr(Stamp, "from_path", classmethod(elsewhere))
        ranks.share(None)
        require_same_copies(ranks, files, counted, None)

    together(2, one)
    assert hashed == []


@pytest.mark.usefixtures("old")
def test_equal_copies_are_read_once_by_one_rank_of_their_machine(tmp_path: Path, hashed: list[Path]) -> None:
    files = shards(tmp_path, [30, 20])
    copies = copied(files, tmp_path / "copies")
    compared(3, files, copies)
    assert sorted(hashed) == sorted(copies.glob("*.h5"))
    hashed.clear()
    compared(3, files, copies)
    assert hashed == []
    assert [shard.source for shard in count_shards([copies / file.name for file in files]).shards] == ["cache"] * 2


@pytest.mark.parametrize("cached", ["no cached file", "that of rank 0", "an older one of its own"])
@pytest.mark.parametrize("age", ["old", "just written"])
def test_other_bytes_under_one_path_are_an_error(
    cached: str, age: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if age == "old":
        request.getfixturevalue("old")
    files = shards(tmp_path, [30, 20])
    copies = copied(files, tmp_path / "copies")
    count_shards(files)
    if cached == "that of rank 0":
        shutil.copy2(f"{files[1]}.vaefit.json", copies)
    elif cached == "an older one of its own":
        count_shards(copies / files[1].name)
    flip(copies / files[1].name)
    size = files[1].stat().st_size
    assert error_of(lambda: compared(3, files, copies)) == (
        f"{files[1]}: the ranks of the job read different bytes under this path "
        f"(got rank 0: {size:,} bytes with sha256 {sha(files[1])}; "
        f"rank 1: {size:,} bytes with sha256 {sha(copies / files[1].name)}; "
        f"rank 2: {size:,} bytes with sha256 {sha(copies / files[1].name)}). {DO}"
    )


def test_a_copy_that_is_gone_is_an_error(tmp_path: Path) -> None:
    files = shards(tmp_path, [30])
    copies = copied(files, tmp_path / "copies")
    (copies / files[0].name).unlink()
    assert "rank 1: 0 bytes with sha256 unknown" in error_of(lambda: compared(2, files, copies))


def test_a_rank_whose_pattern_matches_other_files(tmp_path: Path) -> None:
    files = shards(tmp_path, [30, 20])
    counted = count_shards(files).shards
    data: Callable[[Any], Any] = lambda ranks: files if ranks.rank == 0 else files[:1]  # noqa: E731
    message = error_of(lambda: together(2, lambda ranks: require_same_copies(ranks, data(ranks), counted, None)))
    assert f"the ranks of the job name different files (got none only on rank 1, {files[1]} only on rank 0)" in message


def test_files_that_cannot_be_listed_are_named(tmp_path: Path, said: Callable[[], str]) -> None:
    write(tmp_path / "part.hdf", cells(40), maxshape=(None, 8, 8), chunks=(4, 8, 8))
    layout = h5py.VirtualLayout((40, 8, 8), "u1", maxshape=(None, 8, 8))
    source = h5py.VirtualSource("part.hdf", "grids", (40, 8, 8), maxshape=(None, 8, 8))
    layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
    with h5py.File(tmp_path / "virtual.h5", "w", libver="latest") as handle:
        handle.create_virtual_dataset("grids", layout)
    compared(2, [tmp_path / "virtual.h5"])
    assert "virtual.h5: its files cannot be listed, so the copies of the ranks are not compared" in said()
