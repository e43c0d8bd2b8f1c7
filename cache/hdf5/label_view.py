"""View of a dataset as integer labels (N, H, W): without its axes of length 1, bool and whole floats as integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

if TYPE_CHECKING:  # a cached answer needs no HDF5
    import h5py

KINDS = "iubf"
"""numpy's kinds of the types that can hold labels."""
EXACT = 2**53
"""Floats above it do not hold every whole number."""


def dropped_axes(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the axes of length 1 behind N or at the end that labels lose, one after another, to get to rank 3."""
    left = list(range(len(shape)))
    while len(left) > 3 and 1 in (shape[left[1]], shape[left[-1]]):
        left.pop(1 if shape[left[1]] == 1 else -1)
    return tuple(axis for axis in range(len(shape)) if axis not in left)


def whole_numbers(values: NDArray[Any], where: str) -> NDArray[np.integer[Any]]:
    """Return labels as integers; DataError for a float that is no whole number. Bool becomes uint8, floats int64."""
    if values.dtype.kind == "f":
        values = values.astype(np.float64)
        bad = ~((values == np.floor(values)) & (np.abs(values) <= EXACT))  # NaN is not equal to itself
        if bad.any():
            do = "Labels are whole numbers: store the classes, not scores."
            raise DataError("a label is not a whole number", where, str(values[bad][0]), do)
        return values.astype(np.int64)
    return values.view(np.uint8) if values.dtype.kind == "b" else values


def label_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype that `whole_numbers` gives."""
    return np.dtype({"f": np.int64, "b": np.uint8}.get(dtype.kind, dtype))


class LabelView:
    """An h5py dataset with other shape, chunks and dtype; what it does not change is the dataset's own."""

    def __init__(self, dataset: h5py.Dataset, dropped: tuple[int, ...]) -> None:
        self._raw, self._dropped = dataset, dropped
        self.shape, self.maxshape = self._kept(dataset.shape), self._kept(dataset.maxshape)
        self.chunks = None if dataset.chunks is None else self._kept(dataset.chunks)
        self.dtype, self.ndim = label_dtype(dataset.dtype), len(self.shape)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def __getitem__(self, where: Any) -> NDArray[np.integer[Any]]:
        """Return the labels of a selection, as h5py does."""
        parts = list(where if isinstance(where, tuple) else (where,))
        parts += [slice(None)] * (self.ndim - len(parts))
        for axis in self._dropped:
            parts.insert(axis, 0)
        return whole_numbers(self._raw[tuple(parts)], f"{self._raw.file.filename}:{self._raw.name}")

    def read_direct(self, block: NDArray[np.integer[Any]], where: tuple[slice, ...]) -> None:
        """Read the labels of a selection into an array."""
        block[...] = self[where]

    def _kept(self, sizes: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(size for axis, size in enumerate(sizes) if axis not in self._dropped)


def stored(labels: h5py.Dataset) -> h5py.Dataset:
    """Return the dataset of the file of which `labels` may be a view."""
    return labels._raw if isinstance(labels, LabelView) else labels


def as_labels(dataset: h5py.Dataset) -> h5py.Dataset:
    """Return a dataset as it is, or the view of one that has axes to drop or is not of integers."""
    dropped = dropped_axes(dataset.shape)
    return LabelView(dataset, dropped) if dropped or dataset.dtype.kind in "bf" else dataset
