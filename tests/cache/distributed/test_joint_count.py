"""Tests of a joint count: its answers, cached files and errors are those of a single process."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
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
    many,
    plain,
    shards,
    small_spans,
    write,
    written,
)
from tests.ranks_as_threads import together
from vaefit.cache import count_shards
from vaefit.cache.distributed.joint_count import JointCount
from vaefit.cache.hdf5.stamp import Stamp
from vaefit.cache.scan import scan
from vaefit.cache.store import change_detector


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, user_folder: Path) -> None:
    small_spans(monkeypatch)


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were written long ago, whose digest is taken during the scan."""
    monkeypatch.setattr(Stamp, "racy", property(lambda _: False))
    monkeypatch.setattr(change_detector, "WORTH_A_THREAD", 0)


def virtual(folder: Path) -> list[Path]:
    for part in range(2):
        write(folder / f"part-{part}.hdf", cells(20, part))
    layout = h5py.VirtualLayout((40, 8, 8), "u1")
    for part in range(2):
        layout[20 * part : 20 * part + 20] = h5py.VirtualSource(f"part-{part}.hdf", "grids", (20, 8, 8))
    with h5py.File(folder / "virtual.h5", "w") as handle:
        handle.create_virtual_dataset("grids", layout)
    return [folder / "virtual.h5"]


def growing(folder: Path) -> list[Path]:
    """A virtual dataset whose sources cannot be listed."""
    write(folder / "part.hdf", cells(40), maxshape=(None, 8, 8), chunks=(4, 8, 8))
    layout = h5py.VirtualLayout((40, 8, 8), "u1", maxshape=(None, 8, 8))
    source = h5py.VirtualSource("part.hdf", "grids", (40, 8, 8), maxshape=(None, 8, 8))
    layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
    with h5py.File(folder / "virtual.h5", "w", libver="latest") as handle:
        handle.create_virtual_dataset("grids", layout)
    return [folder / "virtual.h5"]


def ignored(folder: Path, dtype: str = "i2", **layout: Any) -> list[Path]:
    grids = cells(100, 3, dtype)
    grids[::7, 2] = -100
    return [write(folder / "ignored.h5", grids, **layout), write(folder / "none.h5", cells(50, 4, dtype), **layout)]


def declared(folder: Path) -> list[Path]:
    """Labels above 255 beside smaller ones, an axis of length 1, and the label to ignore in attributes."""
    files = [write(folder / "wide.h5", cells(100, 3, "u2") * 97), write(folder / "byte.h5", cells(50, 4))]
    for file in files:
        with h5py.File(file, "a") as handle:
            grids = handle["grids"][()][:, None]
            del handle["grids"]
            handle["labels"], handle["images"] = grids, grids[:, 0]
            handle["labels"].attrs["ignore_index"] = 194
    return files


def unwritten(folder: Path) -> list[Path]:
    with h5py.File(folder / "holes.h5", "w") as handle:
        dataset = handle.create_dataset("grids", (90, 8, 8), "u1", fillvalue=2, **GZIP)
        dataset[8:16], dataset[60:88] = cells(8), cells(28, 1)
    return [folder / "holes.h5"]


LAYOUTS: dict[str, Callable[[Path], list[Path]]] = {
    "one gzip": lambda folder: shards(folder, [200], **GZIP),
    "one contiguous": lambda folder: shards(folder, [201]),
    "one in tiny chunks": lambda folder: shards(folder, [50], chunks=(3, 5, 8), compression="lzf"),
    "one of one grid": lambda folder: shards(folder, [1]),
    "virtual": virtual,
    "virtual and growing": growing,
    "holes": unwritten,
    "ignored": ignored,
    "ignored and shuffled": lambda folder: ignored(folder, "<i4", **GZIP, shuffle=True),
    "declared": declared,
    "many": many,
    "a large one among small ones": lambda folder: shards(folder, [2, 3, 300, 4], **GZIP),
    "another declared": lambda folder: [
        write(folder / "a.h5", cells(20), 9), write(folder / "b.h5", cells(30, 1), 7)
    ],
}  # fmt: skip


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_answers_and_cached_files_are_those_of_one_process(layout: str, ranks: int, tmp_path: Path) -> None:
    files = LAYOUTS[layout](tmp_path)
    ignore = -100 if "ignored" in layout else None
    alone = count_shards(files, ignore_index=ignore)
    expected = written(tmp_path)
    assert len(expected) == (0 if "growing" in layout else len(files))
    forget(tmp_path)
    assert plain(jointly(ranks, files, ignore_index=ignore)) == plain(alone)
    assert written(tmp_path) == expected
    assert not list(tmp_path.glob(".*"))
    again = jointly(ranks, files, ignore_index=ignore)
    assert again.cached == len(expected)
    assert plain(again) == plain(count_shards(files, ignore_index=ignore))


@pytest.mark.usefixtures("old")
def test_files_that_were_not_just_written(tmp_path: Path) -> None:
    files = many(tmp_path)
    alone, expected = count_shards(files), written(tmp_path)
    forget(tmp_path)
    assert plain(jointly(3, files)) == plain(alone)
    assert written(tmp_path) == expected


def test_what_is_cached_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = many(tmp_path)
    alone = count_shards(files)
    for number in (0, 4, 5):
        files[number].with_name(f"{files[number].name}.vaefit.json").unlink()
    counted: list[int] = []
    read = JointCount._read
    monkeypatch.setattr(
        JointCount, "_read", lambda self, piece, *rest: [counted.append(piece.shard), read(self, piece, *rest)][1]
    )
    found = jointly(2, files)
    assert found.counts.tolist() == alone.counts.tolist()
    assert set(counted) == {0, 4, 5}
    assert [shard.source for shard in found.shards].count("scan") == 3
    counted.clear()
    assert jointly(2, files, rebuild=True).cached == 0
    assert set(counted) == set(range(len(files)))


def test_without_the_cache_nothing_is_written(tmp_path: Path) -> None:
    files = many(tmp_path)
    alone = count_shards(files, use_cache=False)
    assert plain(jointly(2, files, use_cache=False)) == plain(alone)
    assert not list(tmp_path.glob("*.json"))


def test_no_scan_is_the_error_of_one_process(tmp_path: Path) -> None:
    files = many(tmp_path)
    count_shards(files[:2])
    errors = [
        error_of(lambda: count_shards(files, may_scan=False)),
        error_of(lambda: jointly(2, files, may_scan=False)),
    ]
    assert errors[0] == errors[1]
    assert "train-2.h5: no cached counts are true" in errors[0]


def wrong_label(folder: Path) -> list[Path]:
    grids = cells(300, 2, "i2")
    grids[250, 3, 4], grids[280, 0, 0] = -5, -6
    return [write(folder / "a.h5", cells(20, 1, "i2")), write(folder / "b.h5", grids)]


def wrong_attribute(folder: Path) -> list[Path]:
    return [write(folder / "a.h5", cells(20)), write(folder / "b.h5", cells(20), 0)]


def other_sizes(folder: Path) -> list[Path]:
    return [write(folder / "a.h5", cells(20)), write(folder / "b.h5", cells(20)[:, :7])]


def missing(folder: Path) -> list[Path]:
    return [write(folder / "a.h5", cells(20)), folder / "b.h5"]


def too_few_classes(folder: Path) -> list[Path]:
    return [write(folder / "a.h5", cells(20), 2)]


@pytest.mark.parametrize("fault", [wrong_label, wrong_attribute, other_sizes, missing, too_few_classes])
def test_an_error_is_that_of_one_process(fault: Callable[[Path], list[Path]], tmp_path: Path) -> None:
    files = fault(tmp_path)
    alone = error_of(lambda: count_shards(files))
    forget(tmp_path)
    for ranks in (2, 3):
        assert error_of(lambda ranks=ranks: jointly(ranks, files)) == alone


def test_a_wrong_attribute_is_no_error_where_classes_are_given(tmp_path: Path, said: Callable[[], str]) -> None:
    files = wrong_attribute(tmp_path)
    alone = count_shards(files, classes=7)
    forget(tmp_path)
    assert plain(jointly(2, files, classes=7)) == plain(alone)
    assert said().count("b.h5: the counts are not cached, for its attribute `classes` is wrong") == 2


def test_machines_that_read_in_different_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = shards(tmp_path, [100])
    honest = scan.choose_route
    calls: list[int] = []

    def other(*arguments: Any) -> Any:
        found = honest(*arguments)
        calls.append(1)
        return replace(found, name="other") if len(calls) == 1 else found

    monkeypatch.setattr(scan, "choose_route", other)
    message = error_of(lambda: jointly(2, file))
    assert re.search(
        r"train-0\.h5: the ranks of the job read the dataset in different ways "
        r"\(got rank 0: read as (other|contiguous)/13; rank 1: read as (?!\1)(other|contiguous)/13\)\. "
        r"Give every machine the same file and the same version of vaefit, then run the command again\.$",
        message,
    )


def test_progress_is_of_all_cells_and_told_by_one_rank(tmp_path: Path) -> None:
    files = shards(tmp_path, [30, 64, 100, 6])
    count_shards(files[1])
    seen: list[tuple[int, int]] = []
    told = lambda done, total: seen.append((done, total))  # noqa: E731
    together(2, lambda ranks: count_shards(files, ranks=ranks, progress=told if ranks.rank == 0 else fail))
    done = [cells for cells, _ in seen]
    assert done == sorted(done)
    assert {total for _, total in seen} == {64 * 200}
    assert done[0] > 64 * 64
    assert done[-1] == 64 * 200


def fail(done: int, total: int) -> None:
    raise AssertionError
