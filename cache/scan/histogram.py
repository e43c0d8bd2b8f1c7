"""Histogram of labels at the speed of memory, and the error for the first wrong label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..hdf5.blocks import MAX_CLASSES as MAX_CLASSES
from ..hdf5.blocks import MAX_LABELS, Labels, Origin, Unwritten

if TYPE_CHECKING:  # a cached answer needs no compiler
    from .native_counter import Count

_PIECE = 1 << 20
"""Bytes per call: enough that calls cost little, few enough for the caches of one core."""
_COMPARED = 14
"""Up to this label, a comparison of all cells with each label in turn is faster than np.bincount."""

Bytes = NDArray[np.uint8]


class OutsideLabelError(Exception):
    """A label is neither in 0..65535 nor ignored; its position is found in a second pass."""


@dataclass(frozen=True)
class Part:
    """The counts of some cells of a dataset."""

    counts: NDArray[np.int64]
    """Cells of each label from 0: (256,), or as many as there are labels where one of them is larger."""
    outside: int
    """Number of cells with the ignored label, where that is outside 0..65535."""
    cells: int
    """Number of counted cells."""


class Histogram:
    """Running counts of the labels 0..65535 and of cells with an ignored label outside them; for one thread.

    Every label is counted, the ignored one too where it lies in 0..65535, so that one scan serves any `ignore_index`.
    `count` takes numpy's place where every byte is a label. Methods raise OutsideLabelError for a label that is neither
    in 0..65535 nor ignored.
    """

    def __init__(
        self, dtype: np.dtype[np.integer], ignore_index: int | None = None, count: Count | None = None
    ) -> None:
        self._dtype, self._ignore_index = dtype, ignore_index
        self._count = None if dtype == np.int8 else count
        self._unsigned = np.dtype(f"{dtype.byteorder}u{dtype.itemsize}")
        self._busy = np.empty(_PIECE // 8, bool)
        self._kept = np.empty(_PIECE // 8, np.uint64)
        self._equal = np.empty(_PIECE, bool)
        self._start()

    def _start(self) -> None:
        self._counts = np.zeros(MAX_CLASSES, np.int64)
        self._outside = self._cells = 0

    def take(self) -> Part:
        """Return the counts since the last call."""
        part = Part(self._counts, self._outside, self._cells)
        self._start()
        return part

    def add_unwritten(self, part: Unwritten | None) -> None:
        """Count cells that all hold one label."""
        if part is None or part.label is None:
            return
        self._cells += part.cells
        if 0 <= part.label < MAX_LABELS:
            self._add(np.bincount([part.label], [part.cells]).astype(np.int64))
        elif part.label == self._ignore_index:
            self._outside += part.cells
        else:
            raise OutsideLabelError

    def add(self, raw: Bytes) -> None:
        """Count the cells in bytes that hold one whole label after another."""
        self._cells += raw.size // self._dtype.itemsize
        for start in range(0, raw.size, _PIECE):
            self._piece(raw[start : start + _PIECE], self._unsigned)

    def add_shuffled(self, planes: Bytes) -> None:
        """Count cells from (itemsize, n) bytes in the order of HDF5's shuffle: the first bytes of all cells, and so on.

        Where all bytes but the lowest are 0, as in every dataset that fits, the lowest are the labels as they stand.
        """
        low = len(planes) - 1 if self._unsigned.newbyteorder("<") != self._unsigned else 0
        others = (planes[:low], planes[low + 1 :])
        if any(other.max(initial=0) for other in others):
            self.add(np.ascontiguousarray(planes.T).reshape(-1))
            return
        self._cells += planes.shape[1]
        for start in range(0, planes.shape[1], _PIECE):
            self._piece(planes[low, start : start + _PIECE], np.dtype(np.uint8))

    def _piece(self, raw: Bytes, unsigned: np.dtype[np.unsignedinteger]) -> None:
        """Count the cells of a piece, read as `unsigned` also where the labels are signed."""
        if self._count is not None and unsigned.itemsize == 1:
            self._count(raw, self._counts)
            return
        whole = raw.size - raw.size % 8
        if raw.ctypes.data % 8:
            raw = raw.copy()  # numpy is slow with words that lie across others
        words = raw[:whole].view(np.uint64)
        busy = np.not_equal(words, 0, out=self._busy[: words.size])
        number = int(np.count_nonzero(busy))
        if 2 * number <= words.size:  # most cells are background: only words with another label are looked at
            kept = words.take(busy.nonzero()[0], out=self._kept[:number], mode="clip")
            self._counts[0] += (words.size - number) * 8 // unsigned.itemsize
            self._labels(kept.view(unsigned))
        else:
            self._labels(words.view(unsigned))
        self._labels(raw[whole:].view(unsigned))

    def _labels(self, cells: NDArray[np.unsignedinteger]) -> None:
        """Count cells one by one."""
        top = int(cells.max(initial=0))
        largest = 127 if self._dtype == np.int8 else MAX_CLASSES - 1
        if top > largest:  # a negative label is a large one here
            cells = self._inside(cells.view(self._dtype))
            top = int(cells.max(initial=0))
        if top >= MAX_CLASSES:
            self._add(np.bincount(cells))
            return
        flat = cells.astype(np.uint8, copy=False)
        if top <= _COMPARED:
            left, equal = flat.size, self._equal[: flat.size]
            for label in range(1, top + 1):
                number = int(np.count_nonzero(np.equal(flat, label, out=equal)))
                self._counts[label] += number
                left -= number
            self._counts[0] += left
        elif flat.size < _PIECE // 8 or flat.size % 2:
            self._counts[:MAX_CLASSES] += np.bincount(flat, minlength=MAX_CLASSES)
        else:
            # np.bincount widens each item to eight bytes: two cells an item take half as long
            pairs = np.bincount(flat.view(np.uint16), minlength=MAX_CLASSES**2).reshape(MAX_CLASSES, MAX_CLASSES)
            self._counts[:MAX_CLASSES] += pairs.sum(0) + pairs.sum(1)

    def _add(self, counts: NDArray[np.int64]) -> None:
        """Add counts of the labels from 0, more of them than before where need be."""
        self._counts = add_counts(self._counts, counts)

    def _inside(self, cells: Labels) -> NDArray[np.uint16]:
        """Return the labels in 0..65535, and count the others as outside."""
        if outside_classes(cells, MAX_LABELS, self._ignore_index).any():
            raise OutsideLabelError
        inside = ~outside_classes(cells, MAX_LABELS, None)
        self._outside += int(np.count_nonzero(~inside))
        return cells[inside].astype(np.uint16)


def add_counts(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sums of two counts of the labels from 0, as long as the longer one."""
    longer, shorter = (first, second) if first.size >= second.size else (second, first)
    total: NDArray[np.int64] = longer.copy()
    total[: shorter.size] += shorter
    return total


def outside_classes(block: Labels, classes: int, ignore_index: int | None) -> NDArray[np.bool_]:
    """Return a mask of the block's shape, True for labels outside 0..classes-1 that are not ignored."""
    bad = (block < 0) | (block >= classes)
    return bad if ignore_index is None else bad & (block != ignore_index)


def wrong_label(
    where: str, origin: Origin, block: Labels, classes: int, ignore_index: int | None, instead: str = ""
) -> DataError:
    """Return the error for the first label of `block` outside 0..classes-1 that is not ignored.

    `origin` is the index of the block's first cell, `instead` the advice besides correcting the data; by default to
    ignore the label, which is right where the dataset holds no other one outside the classes.
    """
    bad = outside_classes(block, classes, ignore_index)
    index = np.unravel_index(int(bad.argmax()), block.shape)
    label = int(block[index])
    grid, row, column = (int(o + i) for o, i in zip(origin, index, strict=True))
    kind = "a negative label" if label < 0 else f"a label outside the {classes} classes"
    if label >= classes == MAX_LABELS:
        kind = f"a label above {MAX_LABELS - 1}"
    what = f"{kind} is at grid {grid}, row {row}, column {column}"
    return DataError(what, where, str(label), f"{instead or f'Pass --ignore-index {label}'}, or mend the data.")
