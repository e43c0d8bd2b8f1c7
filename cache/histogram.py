"""Counting the labels of one block, and finding the first wrong one."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .stream import Labels, Origin

MAX_CLASSES = 256
_PIECE = 1 << 18
"""np.bincount widens what it counts to int64, so a block is counted in pieces of this many labels."""


@dataclass
class Histogram:
    """Running counts of the labels 0..255, int64 (256,), and of cells with an ignored label outside them.

    Every label is counted, the ignored one too where it lies in 0..255, so that one scan serves any `ignore_index`.
    """

    where: str
    ignore_index: int | None = None
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(MAX_CLASSES, dtype=np.int64))
    outside: int = 0

    def add(self, origin: Origin, block: Labels) -> None:
        """Count a block; DataError with the position of the first label that is neither in 0..255 nor ignored."""
        flat = block.reshape(-1)
        if flat.dtype == np.uint8:
            self.counts += _count_bytes(flat.view(np.uint8))
            return
        low, high = int(flat.min()), int(flat.max())
        if low < 0 or high >= MAX_CLASSES:
            if outside_classes(flat, MAX_CLASSES, self.ignore_index).any():
                raise wrong_label(self.where, origin, block, MAX_CLASSES, self.ignore_index)
            inside = ~outside_classes(flat, MAX_CLASSES, None)
            self.outside += int(np.count_nonzero(~inside))
            flat = flat[inside]
        self.counts += _count_bytes(flat.astype(np.uint8))


def outside_classes(block: Labels, classes: int, ignore_index: int | None) -> NDArray[np.bool_]:
    """Where a block holds a label outside 0..classes-1 that is not ignored; the block's shape."""
    bad = (block < 0) | (block >= classes)
    return bad if ignore_index is None else bad & (block != ignore_index)


def wrong_label(
    where: str, origin: Origin, block: Labels, classes: int, ignore_index: int | None, instead: str = ""
) -> DataError:
    """The error for the first label of `block`, which starts at `origin`, outside 0..classes-1 and not ignored.

    `instead` is what to do about it besides mending the data; by default to ignore the label.
    """
    bad = outside_classes(block, classes, ignore_index)
    index = np.unravel_index(int(bad.argmax()), block.shape)
    label = int(block[index])
    grid, row, column = (int(o + i) for o, i in zip(origin, index, strict=True))
    kind = "a negative label" if label < 0 else f"a label outside the {classes} classes"
    what = f"{kind} is at grid {grid}, row {row}, column {column}"
    return DataError(what, where, str(label), f"{instead or f'Pass --ignore-index {label}'}, or mend the data.")


def _count_bytes(flat: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Counts (256,) of uint8 labels; words of eight zeros are dropped first, for most cells are background."""
    whole = flat.size - flat.size % 8
    words = flat[:whole].view(np.uint64)
    busy = words[words != 0]
    left = busy.view(np.uint8)
    counts = np.bincount(flat[whole:], minlength=MAX_CLASSES)
    for start in range(0, left.size, _PIECE):
        counts += np.bincount(left[start : start + _PIECE], minlength=MAX_CLASSES)
    counts[0] += 8 * (words.size - busy.size)
    return counts.astype(np.int64)
