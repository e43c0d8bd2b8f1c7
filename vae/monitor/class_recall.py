"""Which classes die, and which are never learned, told from the counts of every step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .warnings import ClassDied, ClassNotLearned, TrainingWarning

Counts = NDArray[np.int64]
Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]

SPANS = (1.0, 1.5, 2.0, 4.0, 8.0)
"""A class is judged on the newest steps, on as many windows of them as these. Without the second, a death just after a
look would make the steps before the next one look unsteady, and be found a look later."""
STEADY = 4
"""It must have been predicted steadily over so many times the span before."""
LEARNED = 0.1
"""Recall that makes a class a learned one, less its share of the other classes' cells: a class that is predicted
everywhere, or that early in a run stands for every object, has a recall of 1."""
LOWEST, LOWEST_SHARE = 0.05, 0.2
"""Steady is what never fell below this recall, nor below this share of its mean, over a span."""
GONE = 0.02
"""Recall up to which a class counts as never predicted rightly."""
EXPECTED = 14.0
"""Right cells, in independent ones, that a class must have missed: by chance it does so once in a million times."""
HELD_STEPS, HELD_CELLS = 5, 100
"""Steps that must hold the class, and cells of it: one large object that is missed says nothing."""
MISSED_CELLS = 1000
"""Cells that must all but all have been missed before a class counts as not learned."""
PRIOR_DISPERSION, PRIOR_STEPS = 8.0, 4.0
"""Cells of one object are right or wrong together: so much until the steps themselves tell how much."""


class ClassRows(NamedTuple):
    """What each class had in each of some steps, oldest first; int64 (T, C) each."""

    held: Counts
    """Cells of the targets."""
    right: Counts
    """Those of them that were predicted rightly."""
    predicted: Counts
    """Cells that were predicted as the class."""
    strayed: Counts
    """Those of them that are of another class, and not of the most frequent one."""


class ClassRecall:
    """The memory of what every class could do.

    A class has died where it is gone over a span and was predicted steadily before. A class that comes and goes while
    the network learns is not steady over the shortest span, but may be over a longer one, and is judged on that; one
    that came back after it was called dead is judged on spans twice as long from then on. Chance is kept out by how
    many cells a span holds, in independent ones: how much the cells of a class are right or wrong together is measured
    from how its recall differs from step to step (the dispersion of a quasi-binomial; McCullagh and Nelder 1989,
    chapter 4.5), from successive differences, which a trend does not disturb.
    """

    def __init__(self, num_classes: int, window: int, patience: int) -> None:
        self.patience = patience
        self._spans = tuple(int(windows * window) for windows in SPANS)
        self.rows = ClassRows(*np.zeros((4, 0, num_classes), dtype=np.int64))
        self.dead: Flags = np.zeros(num_classes, dtype=bool)
        self.shortest: Counts = np.zeros(num_classes, dtype=np.int64)
        """Steps of the shortest span that the class is judged on."""
        self.missing: Flags = np.zeros(num_classes, dtype=bool)
        """It was said that the class is not learned."""
        self.last_alive: Counts = np.zeros(num_classes, dtype=np.int64)
        """The last step at which the class was not gone."""
        self.missed: Counts = np.zeros((2, num_classes), dtype=np.int64)
        """Cells held since, and how many of them were right."""

    def look(self, step: int, new: ClassRows) -> list[TrainingWarning]:
        """Take in the rows of the newest steps, of which `step` is the last, and tell what they changed."""
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
        sums = _Sums(self.rows)
        dispersion = _dispersion(self.rows)
        for span in self._spans:
            if len(self.rows.held) < span * (1 + STEADY):
                break
            held, right = sums.newest(span)
            before, lowest = sums.steady_recall(span)
            # over long spans a recall wanders, and what it lately was is not known
            sure = before if span < 2 * self._spans[0] else lowest
            enough = sure * held >= EXPECTED * dispersion
            enough &= (held >= HELD_CELLS) & ((self.rows.held[-span:] > 0).sum(axis=0) >= HELD_STEPS)
            gone = enough & (right <= GONE * held) & (span >= self.shortest) & ~self.dead
            for c in np.flatnonzero(gone).tolist():
                recall = float(right[c] / held[c])
                found.append(ClassDied(step, c, recall, float(before[c]), int(held[c]), span))
            self.dead |= gone
            # for the next time, if it comes back
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


class _Sums:
    """Sums over some of the steps, by class; the last step is the newest."""

    def __init__(self, rows: ClassRows) -> None:
        # row k: over the oldest k steps
        self.rows = ClassRows(*(np.pad(values.cumsum(axis=0), ((1, 0), (0, 0))) for values in rows))

    def newest(self, span: int) -> tuple[Counts, Counts]:
        """Cells held, and right, over the newest `span` steps."""
        held, right, _, _ = self.rows
        return held[-1] - held[-1 - span], right[-1] - right[-1 - span]

    def steady_recall(self, span: int) -> tuple[Numbers, Numbers]:
        """Recall over the steps before the newest `span`, and the lowest over any `span` of them.

        Both are 0 for a class that these steps did not show steadily.
        """
        sums = self.rows.held, self.rows.right, self.rows.predicted, self.rows.strayed
        before = slice(len(sums[0]) - 1 - span * (1 + STEADY), len(sums[0]) - span)
        held, right, predicted, strayed = (values[before][-1] - values[before][0] for values in sums)
        recall: Numbers = right / np.maximum(held, 1)
        others = held.sum() - held
        most = np.arange(len(held)) == held.argmax()
        rarer = np.where(most, others, others - held.max())
        chance = np.maximum((predicted - right) / np.maximum(others, 1), strayed / np.maximum(rarer, 1))
        rolled_held, rolled_right = (values[before][span:] - values[before][:-span] for values in sums[:2])
        # a span without any cell of the class shows nothing
        lowest = np.where(rolled_held > 0, rolled_right / np.maximum(rolled_held, 1), 1.0).min(axis=0)
        steady = (recall - chance >= LEARNED) & (lowest >= np.maximum(LOWEST, LOWEST_SHARE * recall))
        return np.where(steady, recall, 0.0), np.where(steady, lowest, 0.0)


def _dispersion(rows: ClassRows) -> Numbers:
    """How many cells of each class (C,) are worth one independent cell, at least 1."""
    held, right = (values.astype(np.float64) for values in (rows.held, rows.right))
    p = right.sum(axis=0) / np.maximum(held.sum(axis=0), 1)
    spread = np.maximum(p * (1 - p), 1e-3)
    # each step that holds the class against the last one before that did; row -1 where there was none
    steps = np.where(held > 0, np.arange(len(held))[:, None], -1)
    last = np.maximum.accumulate(steps, axis=0)[:-1]
    n, m = held[1:], np.take_along_axis(held, last, axis=0) * (last >= 0)
    difference = right[1:] / np.maximum(n, 1) - np.take_along_axis(right, last, axis=0) / np.maximum(m, 1)
    # the variance of a difference is that of a cell times 1/n + 1/m; a step without the class weighs nothing
    weight = n * m / np.maximum(n + m, 1)
    squares = (difference**2 * weight).sum(axis=0) / spread
    found: Numbers = (squares + PRIOR_DISPERSION * PRIOR_STEPS) / ((weight > 0).sum(axis=0) + PRIOR_STEPS)
    return np.maximum(found, 1.0)
