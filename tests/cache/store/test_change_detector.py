"""A dataset that is edited while it is counted."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from vaefit.cache import DataError, count_dataset
from vaefit.cache.hdf5 import open_files
from vaefit.cache.hdf5.stamp import Stamp


@pytest.fixture
def contiguous(tmp_path: Path, write_dataset: Callable[..., Path]) -> Path:
    """Grids of class 0 and 1, not compressed, so that an edit in place keeps the file's size."""
    cells = np.zeros((50, 8, 8), dtype=np.uint8)
    cells[:, 0, 0] = 1
    return write_dataset(tmp_path / "grids.h5", grids=cells)


def _edits_at_the_end(file: Path, most: int) -> Callable[[int, int], None]:
    """A progress that changes one more cell to class 1 whenever all is counted, so many times."""
    with h5py.File(file) as handle:
        offset = handle["grids"].id.get_offset()
    places = iter(range(9, 9 + most))

    def progress(done: int, total: int) -> None:
        place = next(places, None) if done == total else None
        if place is not None:
            with file.open("rb+") as raw:
                raw.seek(offset + place)
                raw.write(b"\1")

    return progress


@pytest.mark.parametrize("times_show_it", [True, False])
def test_a_file_that_changed_meanwhile_is_counted_again(
    times_show_it: bool, contiguous: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not times_show_it:  # both writes within one tick of the file system's clock
        monkeypatch.setattr(Stamp, "same_file", lambda self, other: self.size == other.size)
    found = count_dataset(contiguous, progress=_edits_at_the_end(contiguous, 1))
    assert found.counts.tolist() == [50 * 63 - 1, 51]
    assert "changed while it was counted, so it is counted again" in caplog.text
    again = count_dataset(contiguous)
    assert (again.counts.tolist(), again.source) == ([50 * 63 - 1, 51], "cache")


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_file_that_changes_all_the_time_is_an_error(use_cache: bool, contiguous: Path) -> None:
    with pytest.raises(DataError, match=r"grids\.h5: the data changed while it was counted, twice"):
        count_dataset(contiguous, use_cache=use_cache, progress=_edits_at_the_end(contiguous, 2))
    assert count_dataset(contiguous).source == "scan"


def test_the_times_of_a_file_that_is_not_new_show_the_edit(contiguous: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = time.time() - 60
    os.utime(contiguous, (old, old))
    monkeypatch.setattr(Stamp, "racy", property(lambda _: False))
    found = count_dataset(contiguous, progress=_edits_at_the_end(contiguous, 1))
    assert found.counts.tolist() == [50 * 63 - 1, 51]


@pytest.mark.parametrize("use_fsync", [False, True])
def test_edits_through_a_memory_map_that_stays_open_are_seen(
    contiguous: Path, monkeypatch: pytest.MonkeyPatch, use_fsync: bool
) -> None:
    """A page that was changed once, and waits to be written, changes again without a trace in the file's times."""
    monkeypatch.setattr(Stamp, "racy", property(lambda _: False))  # as for a file that was not just written
    if use_fsync:
        monkeypatch.setattr(open_files, "_write_pages", lambda: os.fsync)
    with h5py.File(contiguous) as handle:
        offset = handle["grids"].id.get_offset()
    cells = np.memmap(contiguous, np.uint8, "r+", offset, (50, 8, 8))
    cells.flush()
    before = contiguous.stat().st_ctime_ns
    time.sleep(0.05)
    cells[0, 1, 1] = 1
    if contiguous.stat().st_ctime_ns == before:
        pytest.skip("a file system in memory does not show edits through memory maps")
    for ones in range(51, 54):
        assert count_dataset(contiguous).counts.tolist() == [50 * 64 - ones, ones]
        assert count_dataset(contiguous).source == "cache"
        time.sleep(0.05)
        cells[0, 2, ones % 8] = 1
    os.utime(contiguous)  # the bytes decide, and stand for the new times from then on
    for ones in (54, 55):
        assert count_dataset(contiguous).counts.tolist() == [50 * 64 - ones, ones]
        contiguous.touch()
        assert count_dataset(contiguous).source == "cache"
        time.sleep(0.05)
        cells[0, 3, ones % 8] = 1
