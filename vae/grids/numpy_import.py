"""From a numpy file to a dataset of grids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaefit.cache.errors import DataError, require_range
from vaefit.cache.histogram import MAX_CLASSES

from .numpy_file import NumpyGrids
from .write import NewGrids, refuse_existing, write_blocks


@dataclass(frozen=True)
class NumpyImport:
    """What was imported."""

    shape: tuple[int, int, int]
    dtype: str
    """As stored: uint8 where that holds every label, else the smallest signed integer that does."""
    smallest: int
    largest: int


def import_numpy(
    file: Path, out: Path, key: str | None = None, classes: int | None = None, overwrite: bool = False
) -> NumpyImport:
    """Write the integer array (N, H, W) of a `.npy` or `.npz` as an HDF5 dataset, a block of about a million cells at a
    time.

    The file is read twice, first for the range of its labels. A label outside 0..255 is kept: it may be the one to
    ignore.

    Args:
        key: the array's name in a `.npz`; None takes the only one that can be grids.
        classes: the dataset's attribute `classes`; None declares nothing, so that C is the largest label + 1.

    Raises DataError, SettingError (see `NumpyGrids.find`), and RunError (see `write_blocks`).
    """
    if classes is not None:
        require_range("--classes", classes, 2, MAX_CLASSES)
    refuse_existing(out, overwrite)
    source = NumpyGrids.find(file, key)
    origin = file.name if source.key is None else f"{file.name}, array {source.key}"
    rows = NewGrids(source.shape, source.dtype, classes, origin).rows
    ends = [(int(block.min()), int(block.max())) for block in source.blocks(rows)]
    smallest, largest = min(low for low, _ in ends), max(high for _, high in ends)
    dtype = _smallest_dtype(smallest, largest, file)

    def converted() -> Iterator[NDArray[Any]]:
        for block in source.blocks(rows):
            yield block.astype(dtype)

    write_blocks(out, converted(), NewGrids(source.shape, dtype, classes, origin), overwrite)
    return NumpyImport(source.shape, str(dtype), smallest, largest)


def _smallest_dtype(smallest: int, largest: int, file: Path) -> np.dtype[Any]:
    if smallest >= 0 and largest < MAX_CLASSES:
        return np.dtype(np.uint8)
    for dtype in ("int8", "int16", "int32", "int64"):
        if np.iinfo(dtype).min <= smallest and largest <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    raise DataError("a label is beyond 64 bits", str(file), str(largest), "Store smaller labels.")
