"""An interrupted scan goes on where it stopped, unless the data changed."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from vaefit.cache import DataError, DatasetCounts, count_dataset
from vaefit.cache.hdf5.stamp import Stamp
from vaefit.cache.store import partial_scan

GRIDS, SIDE = 18_000, 32


pytestmark = pytest.mark.usefixtures("user_folder")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save after every span."""
    monkeypatch.setattr(partial_scan, "SECONDS", 0.0)


@pytest.fixture(scope="module")
def cells() -> np.ndarray:
    found = np.zeros((GRIDS, SIDE, SIDE), np.int8)
    for label in (1, 2, 3):
        found[:: 7 * label, label] = label
    return found


@pytest.fixture
def data(tmp_path: Path, cells: np.ndarray) -> Path:
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "maps.h5"
    with h5py.File(file, "w") as handle:
        handle["grids"] = cells
    return file


def partial_file(data: Path) -> Path:
    return data.with_name(f".{data.name}.vaefit.partial.json")


def interrupt(data: Path, spans: int, error: type[BaseException] = KeyboardInterrupt, **settings: Any) -> int:
    """Break off after some spans; how many cells were counted."""
    seen: list[int] = []

    def stop(done: int, total: int) -> None:
        seen.append(done)
        assert done < total, "the scan has too few spans for this test"
        if len(seen) == spans:
            raise error

    with pytest.raises(error):
        count_dataset(data, progress=stop, **settings)
    return seen[-1]


def counted(data: Path, **settings: Any) -> DatasetCounts:
    found = count_dataset(data, **settings)
    with h5py.File(data) as handle:
        labels = handle["grids"][()]
    expected = [np.count_nonzero(labels == label) for label in range(8)]
    assert [*found.counts.tolist(), *([0] * (8 - found.classes))] == expected
    return found


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_scan_goes_on_where_it_was_interrupted(
    data: Path, error: type[BaseException], threads: int, said: Any
) -> None:
    first = interrupt(data, 1, error, threads=threads)
    assert partial_file(data).is_file()
    second = interrupt(data, 1, error, threads=threads)
    assert 0 < first < second
    found = counted(data, threads=threads)
    assert (found.source, found.resumed) == ("scan", second)
    assert sorted(p.name for p in data.parent.iterdir()) == ["maps.h5", "maps.h5.vaefit.json"]
    assert counted(data).source == "cache"
    assert not said()


@pytest.mark.usefixtures("at_once")
def test_the_counts_of_every_place_to_stop(data: Path) -> None:
    spans = []
    count_dataset(data, use_cache=False, threads=1, progress=lambda done, _: spans.append(done))
    for stop in range(1, len(spans)):
        done = interrupt(data, stop, threads=1)
        found = counted(data, threads=1)
        assert found.resumed == done == spans[stop - 1]
        found.cache_file.unlink()


@pytest.mark.usefixtures("at_once")
def test_a_scan_interrupted_at_its_very_end(data: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        count_dataset(data, progress=stop)
    found = counted(data)
    assert found.resumed == found.cells


def test_a_short_scan_leaves_nothing(data: Path, user_folder: Path) -> None:
    interrupt(data, 2)
    assert list(data.parent.iterdir()) == [data]
    assert not user_folder.exists()


def test_it_is_saved_every_few_seconds(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_scan, "SECONDS", 0.05)
    there = []

    def slow(done: int, total: int) -> None:
        there.append(partial_file(data).exists())
        time.sleep(0.06)

    counted(data, threads=1, progress=slow)
    assert there[0] is False
    assert there[2] is True
    assert not partial_file(data).exists()


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("old", [False, True], ids=["just written", "written long ago"])
@pytest.mark.parametrize("change", ["edit", "touch", "twin", "edit and back"])
def test_it_starts_over_where_the_data_changed(
    data: Path, change: str, old: bool, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if old:
        monkeypatch.setattr(Stamp, "racy", property(lambda _: False))
    interrupt(data, 2, threads=1)
    state = data.stat()
    if change == "touch":
        os.utime(data)
    elif change == "twin":
        twin = data.with_name("twin")
        twin.write_bytes(data.read_bytes())
        twin.replace(data)
    else:
        for label in (5, 0) if change == "edit and back" else (5,):
            with h5py.File(data, "r+") as handle:
                handle["grids"][1, 0, 0] = label
        os.utime(data, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert counted(data).resumed == 0
    assert "the data changed since the scan was interrupted; it starts over" in said()
    assert not partial_file(data).exists()


@pytest.mark.usefixtures("at_once")
def test_it_starts_over_where_only_the_bytes_show_the_change(
    data: Path, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulate two writes within one tick of the file system's clock."""
    monkeypatch.setattr(Stamp, "same_file", lambda self, other: self.size == other.size)
    interrupt(data, 2, threads=1)
    with h5py.File(data, "r+") as handle:
        handle["grids"][1, 0, 0] = 5
    assert counted(data).resumed == 0
    assert "starts over" in said()


@pytest.mark.usefixtures("at_once")
def test_counts_of_data_that_changed_meanwhile_are_not_saved(data: Path) -> None:
    with h5py.File(data) as handle:
        first = handle["grids"].id.get_offset()
    seen: list[int] = []

    def change(done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == 2:
            raise KeyboardInterrupt
        with data.open("r+b") as stream:
            stream.seek(first)
            stream.write(b"\7")

    with pytest.raises(KeyboardInterrupt):
        count_dataset(data, progress=change, threads=1)
    assert json.loads(partial_file(data).read_text())["checkpoint"]["spans"] == 1  # saved before the change
    found = counted(data, threads=1)
    assert (found.resumed, found.counts.tolist()[7]) == (0, 1)


@pytest.mark.usefixtures("at_once")
def test_rebuild_and_no_cache_do_not_go_on(data: Path) -> None:
    interrupt(data, 2, threads=1)
    before = partial_file(data).read_bytes()
    assert counted(data, use_cache=False).resumed == 0
    interrupt(data, 1, use_cache=False)
    assert partial_file(data).read_bytes() == before
    assert counted(data, rebuild=True).resumed == 0
    assert not partial_file(data).exists()


@pytest.mark.usefixtures("at_once")
def test_another_number_of_threads_goes_on(data: Path) -> None:
    done = interrupt(data, 2, threads=1)
    assert counted(data, threads=2).resumed == done
    assert not partial_file(data).exists()


@pytest.mark.usefixtures("at_once")
def test_ignored_labels(data: Path) -> None:
    # nothing outside 0..255 is met before the end: the counts serve any ignored label
    with h5py.File(data, "r+") as handle:
        handle["grids"][-1, 0, :3] = -1
    done = interrupt(data, 2, ignore_index=-1, threads=1)
    with pytest.raises(DataError, match="negative"):
        count_dataset(data, threads=1)
    found = counted(data, ignore_index=-1, threads=1)
    assert found.resumed >= done
    found.cache_file.unlink()
    # three were met: a checkpoint of -1 must not hide them from another question
    with h5py.File(data, "r+") as handle:
        handle["grids"][0, 0, :3], handle["grids"][-1, 0, :3] = -1, 0
    interrupt(data, 2, ignore_index=-1, threads=1)
    for other in (None, 2):
        with pytest.raises(DataError, match="negative"):
            count_dataset(data, ignore_index=other, threads=1)


@pytest.mark.usefixtures("at_once")
def test_it_lies_where_the_cached_file_would(data: Path, tmp_path: Path, user_folder: Path) -> None:
    chosen = tmp_path / "chosen"
    done = interrupt(data, 2, threads=1, cache_dir=chosen)
    assert [re.sub(r"h5\.[0-9a-f]{16}", "h5", p.name) for p in chosen.iterdir()] == [".maps.h5.vaefit.partial.json"]
    partial_file(data).mkdir()
    assert counted(data, threads=1).resumed == 0
    assert counted(data, threads=1, cache_dir=chosen, rebuild=False).source == "cache"
    found = counted(data, threads=1, cache_dir=chosen, rebuild=True)
    assert (found.resumed, list(chosen.iterdir())) == (0, [found.cache_file])
    data.with_name("maps.h5.vaefit.json").unlink()
    found.cache_file.unlink()
    done = interrupt(data, 2, threads=1)  # a folder is in the way: the user's cache
    assert [p.name for p in user_folder.rglob(".maps*")] == [".maps.h5.vaefit.partial.json"]
    assert counted(data, threads=1).resumed == done
    assert not list(user_folder.rglob(".maps*"))
