"""Copies of a dataset with other labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from vaefit.cache import DataError, class_counts
from vaefit.vae.data.relabel import relabel

LABELS = np.array([-1, 3, 7, 850, 2**40])
CELLS = LABELS[np.random.default_rng(0).integers(0, 5, (40, 6, 5))]


def write(file: Path, cells: Any = CELLS, **attributes: Any) -> Path:
    with h5py.File(file, "w") as handle:
        handle["labels"] = cells
        handle["labels"].attrs.update(attributes)
    return file


def read(file: Path) -> np.ndarray:
    with h5py.File(file) as handle:
        return handle["grids"][()]


@pytest.mark.parametrize("declared", [True, False])
def test_labels_are_numbered_in_order_and_the_ignored_one_is_not(tmp_path: Path, declared: bool) -> None:
    file = write(tmp_path / "in.h5", **({"ignore_index": -1} if declared else {}))
    made = relabel(file, tmp_path / "out.h5", {7: 3}, renumber=True, ignore_index=None if declared else -1)
    assert made.labels == {-1: 255, 3: 0, 7: 0, 850: 1, 2**40: 2}
    assert made.ignore_index == 255
    expected = np.select([CELLS == -1, CELLS == 850, CELLS == 2**40], [255, 1, 2], 0)
    assert np.array_equal(read(tmp_path / "out.h5"), expected)
    assert class_counts(tmp_path / "out.h5").tolist() == np.bincount(expected[expected != 255]).tolist()


def test_a_shard_after_the_other_and_over_itself(tmp_path: Path) -> None:
    write(tmp_path / "a-1.h5", CELLS.astype("f8"))
    write(tmp_path / "a-2.h5", CELLS[:, None])
    relabel(str(tmp_path / "a-*.h5"), tmp_path / "both.h5", {}, renumber=True)
    expected = np.searchsorted(LABELS, CELLS)
    assert np.array_equal(read(tmp_path / "both.h5"), np.concatenate([expected, expected]))
    relabel(tmp_path / "both.h5", tmp_path / "both.h5", {0: 300}, overwrite=True)
    assert np.array_equal(read(tmp_path / "both.h5")[:40], np.where(expected == 0, 300, expected))


def test_a_number_that_no_class_has(tmp_path: Path) -> None:
    file = write(tmp_path / "in.h5")
    with pytest.raises(DataError, match=r"no class has such a number \(got -1\)\. Map it to 0 to 65535"):
        relabel(file, tmp_path / "out.h5", {3: 0})
    assert not (tmp_path / "out.h5").exists()
