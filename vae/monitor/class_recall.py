"""Detector of classes that die or are never learned, from the counts of every step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .warnings import ClassDied, ClassNotLearned, TrainingWarning

Counts = NDArray[np.int64]
Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]

SPANS = (1.0, 1.5, 2.0, 4.0, 8.0)
"""Lengths in windows of the newest steps on which a class is judged. The second length is needed for a death just after
a check: on the first one the steps before the next check seem unsteady, and the warning comes a check later."""
STEADY = 4
"""Spans before the newest one over which the class must have been predicted steadily."""
LEARNED = 0.1
"""Recall of a learned class, minus the share of other classes' cells that are predicted as this class: a class that is
predicted everywhere, or for every object early in a run, has a recall of 1."""
LOWEST, LOWEST_SHARE = 0.05, 0.2
"""A steady recall never falls, over a span, below this value or below this share of its mean."""
GONE = 0.02
"""Recall up to which a class counts as gone."""
EXPECTED = 14.0
"""Expected correct cells, in independent cells, of a class that is gone: by chance a class misses all of them once in
a million times."""
HELD_STEPS, HELD_CELLS = 5, 100
"""Steps that must hold the class, and cells of it: one missed large object is no evidence."""
MISSED_CELLS = 1000
"""Cells of a class, nearly all wrong, after which it counts as not learned."""
PRIOR_DISPERSION, PRIOR_STEPS = 8.0, 4.0
"""Prior of the dispersion, and its weight in steps: cells of one object are correct or wrong together."""


class ClassRows(NamedTuple):
    """Counts of each class in T steps, oldest first; int64 (T, C) each."""

    held: Counts
    """Cells of the class in the targets."""
    right: Counts
    """Cells of the class that were predicted correctly."""
    predicted: Counts
    """Cells that were predicted as the class."""
    wrong: Counts
    """Cells predicted as the class whose target is another class, except the most frequent class."""


class ClassRecall:
    """Detector with the recent recall of every class.

    A class died if it is gone over a span and was predicted steadily before. A class whose recall comes and goes while
    the network learns is not steady over the shortest span, but may be over a longer span. A class that returns after
    a warning is judged on spans twice as long from then on. A span must hold enough independent cells to exclude
    chance. The number of cells that are worth one independent cell is the dispersion of a quasi-binomial (McCullagh and
    Nelder 1989, chapter 4.5) of the recall per step; it is estimated from successive differences, which a trend does
    not disturb.
    """

    def __init__(self, num_classes: int, window: int, patience: int) -> None:
        self.patience = patience
        self._spans = tuple(int(windows * window) for windows in SPANS)
        self.rows = ClassRows(*np.zeros((4, 0, num_classes), dtype=np.int64))
        self.dead: Flags = np.zeros(num_classes, dtype=bool)
        self.shortest: Counts = np.zeros(num_classes, dtype=np.int64)
        """Steps of the shortest span on which the class is judged."""
        self.missing: Flags = np.zeros(num_classes, dtype=bool)
        """A warning said that the class is not learned."""
        self.last_alive: Counts = np.zeros(num_classes, dtype=np.int64)
        """Last step at which the class was not gone."""
        self.missed: Counts = np.zeros((2, num_classes), dtype=np.int64)
        """Cells of the class in the targets since then, and the correct ones among them."""

    def check(self, step: int, new: ClassRows) -> list[TrainingWarning]:
        """Add the rows of the newest steps, the last of which is `step`, and return the new warnings."""
        keep = self._spans[-1] * (1 + STEADY)
        self.rows = ClassRows(*(np.concatenate(both)[-keep:] for both in zip(self.rows, new, strict=True)))
        held, right = new.held.sum(axis=0), new.right.sum(axis=0)
        recall = right / np.maximum(held, 1)
        alive = recall > GONE
        self.last_alive = np.where(alive, step, self.last_alive)
        self.missed = np.where(alive, 0, self.missed + np.stack([held, right]))
        back = recall >= LEARNED
        self.dead, self.missing = self.dead & ~back, self.missing & ~back
        return [*self._died(step), *self._not_learned(step)]

    def _died(self, step: int) -> list[TrainingWarning]:
        found: list[TrainingWarning] = []
        sums = ClassRows(*(np.pad(values.cumsum(axis=0), ((1, 0), (0, 0))) for values in self.rows))
        dispersion = _dispersion(self.rows)
        for span in self._spans:
            if len(self.rows.held) < span * (1 + STEADY):
                break
            held, right = (values[-1] - values[-1 - span] for values in sums[:2])
            before, lowest = _steady_recall(sums, span)
            # over long spans a recall drifts, so its latest value is not known
            certain = before if span < 2 * self._spans[0] else lowest
            enough = certain * held >= EXPECTED * dispersion
            enough &= (held >= HELD_CELLS) & ((self.rows.held[-span:] > 0).sum(axis=0) >= HELD_STEPS)
            gone = enough & (right <= GONE * held) & (span >= self.shortest) & ~self.dead
            for c in np.flatnonzero(gone).tolist():
                recall = float(right[c] / held[c])
                found.append(ClassDied(step, c, recall, float(before[c]), int(held[c]), span))
            self.dead |= gone
            # for a class that returns and dies again
            self.shortest = np.where(gone, min(2 * span, self._spans[-1]), self.shortest)
        return found

    def _not_learned(self, step: int) -> list[TrainingWarning]:
        waited = step - self.last_alive
        held, right = self.missed
        overdue = (waited >= self.patience) & (held >= MISSED_CELLS) & ~self.dead & ~self.missing
        self.missing |= overdue
        return [
            ClassNotLearned(step, c, int(right[c]), int(held[c]), int(waited[c]))
            for c in np.flatnonzero(overdue).tolist()
        ]


def _steady_recall(sums: ClassRows, span: int) -> tuple[Numbers, Numbers]:
    """Return the recall over the steps before the newest `span`, and the lowest recall over any `span` of them.

    Both are 0 for a class without a steady recall in these steps. Row k of `sums` is the sum over the oldest k steps.
    """
    before = slice(len(sums.held) - 1 - span * (1 + STEADY), len(sums.held) - span)
    held, right, predicted, wrong = (values[before][-1] - values[before][0] for values in sums)
    recall: Numbers = right / np.maximum(held, 1)
    others = held.sum() - held
    most = np.arange(len(held)) == held.argmax()
    rarer = np.where(most, others, others - held.max())
    chance = np.maximum((predicted - right) / np.maximum(others, 1), wrong / np.maximum(rarer, 1))
    rolled_held, rolled_right = (values[before][span:] - values[before][:-span] for values in sums[:2])
    # a span without a cell of the class is no evidence
    lowest = np.where(rolled_held > 0, rolled_right / np.maximum(rolled_held, 1), 1.0).min(axis=0)
    steady = (recall - chance >= LEARNED) & (lowest >= np.maximum(LOWEST, LOWEST_SHARE * recall))
    return np.where(steady, recall, 0.0), np.where(steady, lowest, 0.0)


def _dispersion(rows: ClassRows) -> Numbers:
    """Return how many cells of each class (C,) are worth one independent cell; at least 1."""
    held, right = (values.astype(np.float64) for values in (rows.held, rows.right))
    p = right.sum(axis=0) / np.maximum(held.sum(axis=0), 1)
    spread = np.maximum(p * (1 - p), 1e-3)
    # compare each step that holds the class with the last such step before it; -1 where there is none
    steps = np.where(held > 0, np.arange(len(held))[:, None], -1)
    last = np.maximum.accumulate(steps, axis=0)[:-1]
    n, m = held[1:], np.take_along_axis(held, last, axis=0) * (last >= 0)
    difference = right[1:] / np.maximum(n, 1) - np.take_along_axis(right, last, axis=0) / np.maximum(m, 1)
    # the variance of a difference is that of a cell times 1/n + 1/m; a step without the class has weight 0
    weight = n * m / np.maximum(n + m, 1)
    squares = (difference**2 * weight).sum(axis=0) / spread
    found: Numbers = (squares + PRIOR_DISPERSION * PRIOR_STEPS) / ((weight > 0).sum(axis=0) + PRIOR_STEPS)
    return np.maximum(found, 1.0)
