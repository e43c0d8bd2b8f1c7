"""Data that this process has written, through a handle that is still open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from vaefit.cache import class_counts, class_weights, count_dataset
from vaefit.vae.data.batch import batch_at


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("layout", [{}, {"chunks": (2, 3, 3)}, {"chunks": (1, 3, 3), "compression": "gzip"}])
def test_what_was_not_flushed_is_counted(tmp_path: Path, use_cache: bool, layout: dict[str, object]) -> None:
    file = tmp_path / "w.h5"
    with h5py.File(file, "w") as handle:
        handle.create_dataset("grids", data=np.zeros((4, 3, 3), "u1"), **layout)
        for label in (1, 2, 3):
            handle["grids"][label] = label
            expected = [36 - 9 * label, *[9] * label]
            for _ in range(2):
                assert class_counts(file, use_cache=use_cache).tolist() == expected
            assert batch_at(file, (label,)).grids.tolist() == [[[label] * 3] * 3]
    assert class_counts(file).tolist() == [9, 9, 9, 9]


def test_it_is_cached_and_reading_changes_nothing(dataset: Path, write_dataset: Callable[..., Path]) -> None:
    other = write_dataset(dataset.with_name("other.h5"), grids=np.zeros((1, 2, 2), "u1"))
    with h5py.File(dataset, "r+"), h5py.File(other, "r+"):
        before = [file.stat().st_mtime_ns for file in (dataset, other)]
        assert [count_dataset(dataset).source for _ in range(2)] == ["scan", "cache"]
        assert class_weights(dataset).size == 10
        assert [file.stat().st_mtime_ns for file in (dataset, other)] == before


def test_a_source_of_a_virtual_dataset(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "part.h5", "w") as part:
        part["grids"] = np.zeros((4, 3, 3), "u1")
        part.flush()
        layout = h5py.VirtualLayout((4, 3, 3), "u1")
        layout[:] = h5py.VirtualSource("part.h5", "grids", (4, 3, 3))
        with h5py.File(tmp_path / "whole.h5", "w") as whole:
            whole.create_virtual_dataset("grids", layout)
        assert class_counts(tmp_path / "whole.h5").tolist() == [36]
        part["grids"][0] = 1
        assert class_counts(tmp_path / "whole.h5").tolist() == [27, 9]
        assert count_dataset(tmp_path / "whole.h5").source == "cache"
