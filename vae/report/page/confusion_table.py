"""Confusion table: the confusion counts of the classes that occur."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..palette import MOST_CLASSES

SHADES = 10


@dataclass(frozen=True)
class ConfusionRow:
    """Cells of one target class, by predicted class."""

    label: int
    total: int
    counts: list[int]
    """A value for each column."""
    shades: list[int]
    """0 for no cell, else 1..`SHADES`, in proportion to the share of the row's cells."""
    others: int
    """Cells predicted as a class without a column."""


@dataclass(frozen=True)
class ConfusionTable:
    """Table of confusion counts: row = target, column = prediction."""

    labels: list[int]
    """Classes of the rows and the columns."""
    used: int
    """Number of classes that occur in the targets or were predicted."""
    rows: list[ConfusionRow]

    @classmethod
    def from_counts(cls, confusion: tuple[tuple[int, ...], ...]) -> ConfusionTable:
        """Return the table of counts (C, C), with the `MOST_CLASSES` classes that have the most wrong cells."""
        counts = np.array(confusion, dtype=np.int64)
        held, predicted = counts.sum(axis=1), counts.sum(axis=0)
        used = np.flatnonzero(held + predicted)
        wrong = held + predicted - 2 * counts.diagonal()
        # stable: of classes with as many wrong cells the lower labels stay
        labels = np.sort(used[np.argsort(-wrong[used], kind="stable")[:MOST_CLASSES]])
        shown, totals = counts[np.ix_(labels, labels)], held[labels]
        shades = -(-shown * SHADES // np.maximum(totals, 1)[:, None])
        columns = labels, totals, shown, shades, totals - shown.sum(axis=1)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return cls(labels.tolist(), used.size, [ConfusionRow(*row) for row in rows])

    @property
    def thinned(self) -> bool:
        """True if some classes have no row."""
        return len(self.labels) < self.used
