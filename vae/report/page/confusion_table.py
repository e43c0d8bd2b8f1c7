"""Confusion table: the confusion counts of the classes that occur."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..palette import MOST_CLASSES

SHADES = 10


@dataclass(frozen=True)
class ConfusionCell:
    """Number of cells of one class that were predicted as one class."""

    count: int
    share: float
    """Share of the row's cells."""
    shade: int
    """0 for none, else 1..`SHADES`, in proportion to the share."""
    right: bool


@dataclass(frozen=True)
class ConfusionRow:
    """Cells of one target class."""

    label: int
    total: int
    cells: tuple[ConfusionCell, ...]
    others: int
    """Cells predicted as a class without a column."""


@dataclass(frozen=True)
class ConfusionTable:
    """Table of confusion counts: row = target, column = prediction."""

    labels: tuple[int, ...]
    """Classes of the rows and the columns."""
    used: int
    """Number of classes that occur in the targets or were predicted."""
    rows: tuple[ConfusionRow, ...]

    @classmethod
    def from_counts(cls, confusion: tuple[tuple[int, ...], ...]) -> ConfusionTable:
        """Return the table of counts (C, C), with the `MOST_CLASSES` classes that have the most wrong cells."""
        counts = np.array(confusion, dtype=np.int64)
        held, predicted = counts.sum(axis=1), counts.sum(axis=0)
        used = np.flatnonzero(held + predicted)
        wrong = held + predicted - 2 * counts.diagonal()
        # stable: of classes with as many wrong cells the lower labels stay
        worst = used[np.argsort(-wrong[used], kind="stable")[:MOST_CLASSES]]
        labels = np.sort(worst).tolist()
        return cls(tuple(labels), used.size, tuple(_row(counts[label], label, labels) for label in labels))

    @property
    def thinned(self) -> bool:
        """True if some classes have no row."""
        return len(self.labels) < self.used


def _row(counts: NDArray[np.int64], label: int, labels: list[int]) -> ConfusionRow:
    total = int(counts.sum())
    cells = []
    for column in labels:
        count = int(counts[column])
        share = count / total if total else 0.0
        cells.append(ConfusionCell(count, share, -(-count * SHADES // total) if count else 0, column == label))
    return ConfusionRow(label, total, tuple(cells), total - sum(cell.count for cell in cells))
