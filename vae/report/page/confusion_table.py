"""The confusion counts as rows of a table, of the classes that have something to show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHOWN = 32
"""Classes with a row and a column; of more, those with most cells at fault."""
SHADES = 10


@dataclass(frozen=True)
class ConfusionCell:
    """How many cells of one class were predicted as another."""

    count: int
    share: float
    """Of the row's cells."""
    shade: int
    """0 for none, else 1..`SHADES`, in proportion to the share."""
    right: bool


@dataclass(frozen=True)
class ConfusionRow:
    """The cells of one class."""

    label: int
    total: int
    cells: tuple[ConfusionCell, ...]
    others: int
    """Cells that were predicted as a class without a column."""


@dataclass(frozen=True)
class ConfusionTable:
    """Row = target, column = prediction."""

    labels: tuple[int, ...]
    """Of the rows and the columns."""
    used: int
    """Classes that are in the batch or were predicted."""
    rows: tuple[ConfusionRow, ...]

    @classmethod
    def from_counts(cls, confusion: tuple[tuple[int, ...], ...]) -> ConfusionTable:
        """Take the counts (C, C) apart."""
        counts = np.array(confusion, dtype=np.int64)
        held, predicted = counts.sum(axis=1), counts.sum(axis=0)
        used = np.flatnonzero(held + predicted)
        at_fault = held + predicted - 2 * counts.diagonal()
        # stable: of equal ones the lower labels stay
        worst = used[np.argsort(-at_fault[used], kind="stable")[:SHOWN]]
        labels = np.sort(worst).tolist()
        return cls(tuple(labels), used.size, tuple(_row(counts[label], label, labels) for label in labels))

    @property
    def thinned(self) -> bool:
        """Some classes have no row."""
        return len(self.labels) < self.used


def _row(counts: NDArray[np.int64], label: int, labels: list[int]) -> ConfusionRow:
    total = int(counts.sum())
    cells = []
    for column in labels:
        count = int(counts[column])
        share = count / total if total else 0.0
        cells.append(ConfusionCell(count, share, -(-count * SHADES // total) if count else 0, column == label))
    return ConfusionRow(label, total, tuple(cells), total - sum(cell.count for cell in cells))
