"""A dataset that is edited while it is counted."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from vaefit.cache import count_dataset
from vaefit.cache.fingerprint import Stamp


@pytest.fixture
def contiguous(tmp_path: Path, write_dataset: Callable[..., Path]) -> Path:
    """Grids of class 0 and 1, not compressed, so that an edit in place keeps the file's size."""
    cells = np.zeros((50, 8, 8), dtype=np.uint8)
    cells[:, 0, 0] = 1
    return write_dataset(tmp_path / "grids.h5", grids=cells)


def _edit_at_the_end(file: Path) -> Callable[[int, int], None]:
    with h5py.File(file) as handle:
        offset = handle["grids"].id.get_offset()

    def progress(done: int, total: int) -> None:
        if done == total:
            with file.open("rb+") as raw:
                raw.seek(offset + 9)
                raw.write(b"\1")

    return progress


@pytest.mark.parametrize("times_show_it", [True, False])
def test_counts_of_a_file_that_changed_meanwhile_are_not_cached(
    times_show_it: bool, contiguous: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not times_show_it:  # both writes within one tick of the file system's clock
        monkeypatch.setattr(Stamp, "same_file", lambda self, other: self.size == other.size)
    found = count_dataset(contiguous, progress=_edit_at_the_end(contiguous))
    assert found.counts.tolist() == [50 * 63, 50]  # what was read before the edit
    assert found.cache_file is None
    assert "changed while it was counted" in caplog.text
    assert count_dataset(contiguous).counts.tolist() == [50 * 63 - 1, 51]


def test_the_times_of_a_file_that_is_not_new_show_the_edit(contiguous: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = time.time() - 60
    os.utime(contiguous, (old, old))
    monkeypatch.setattr(Stamp, "racy", property(lambda _: False))
    found = count_dataset(contiguous, progress=_edit_at_the_end(contiguous))
    assert found.cache_file is None
