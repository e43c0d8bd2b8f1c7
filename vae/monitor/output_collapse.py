"""Detector of output collapse: the output no longer depends on the input, by the counts and the newest batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..metrics.accuracy import BaselineShares, Labels, variation
from ..metrics.verdict import COLLAPSE_SKILL, ONE_CLASS, collapsed
from ..objective.objective import NO_LABEL
from .class_recall import HELD_CELLS, ClassRows
from .warnings import Collapsed, TrainingWarning

IN_A_ROW = 2
"""Consecutive checks that must find a collapse: one batch may hold grids that are hard to distinguish."""
RECOVERED_SKILL = 2 * COLLAPSE_SKILL


@dataclass(frozen=True)
class _TopClass:
    """Most frequent class of some predictions."""

    label: int
    share: float
    """Share of the predictions."""
    accuracy: float
    """Pixel accuracy of all predictions."""
    dominates: bool
    """The class covers nearly all predictions but not the targets, and the accuracy is near the majority share."""

    @classmethod
    def from_predictions(cls, held: Labels, right: int, predicted: Labels) -> _TopClass:
        """Compute it from the cells of each class in targets and predictions (C,), and the number of right cells."""
        label, cells = int(np.argmax(predicted)), int(held.sum())
        share, accuracy, majority = predicted[label] / cells, right / cells, held.max() / cells
        no_better = accuracy <= majority + COLLAPSE_SKILL * (1 - majority)
        others = cells - held[label]
        dominates = share >= ONE_CLASS and others > (1 - ONE_CLASS) * cells and others >= HELD_CELLS and no_better
        return cls(label, float(share), float(accuracy), bool(dominates))


class OutputCollapse:
    """Detector with the rules of the verdict COLLAPSED (see verdict.py), which warns from step `warmup` on."""

    def __init__(self, num_classes: int, warmup: int, ignore_index: int | None) -> None:
        self.num_classes, self.warmup, self.ignore_index = num_classes, warmup, ignore_index
        self.collapsed_checks = 0
        """Consecutive checks that found a collapse."""
        self.collapsed = False

    def check(self, step: int, new: ClassRows, batch: tuple[Labels, Labels] | None) -> list[TrainingWarning]:
        """Check the rows of the newest steps, the last of which is `step`, and its (predictions, targets), if any."""
        held, predicted = new.held.sum(axis=0), new.predicted.sum(axis=0)
        top = _TopClass.from_predictions(held, int(new.right.sum()), predicted) if held.any() else None
        skill, varied, batch_top = (None, None, None) if batch is None else self._measure(*batch)
        dominates = top is not None and top.dominates
        found = dominates or collapsed(skill, varied, one_class=False)
        self.collapsed_checks = self.collapsed_checks + 1 if found else 0
        if self.collapsed:
            self.collapsed = dominates or (skill is not None and skill < RECOVERED_SKILL)
            return []
        seen = top if dominates else batch_top
        if step < self.warmup or seen is None or self.collapsed_checks < IN_A_ROW:
            return []
        self.collapsed = True
        one = seen.share >= ONE_CLASS
        label, share = (seen.label, seen.share) if one else (None, None)
        return [Collapsed(step, label, skill, varied, share, seen.accuracy)]

    def _measure(self, predictions: Labels, targets: Labels) -> tuple[float | None, float | None, _TopClass | None]:
        """Return skill, variation and top class of a batch (B, H, W); None for each that the batch does not define."""
        kept = (targets >= 0) & (targets < self.num_classes)  # as in the counts, which leave out all other labels
        if self.ignore_index is not None:
            kept &= targets != self.ignore_index
        if not kept.any():
            return None, None, None
        targets = np.where(kept, targets, NO_LABEL)
        held = np.bincount(targets[kept], minlength=self.num_classes)
        predicted = np.bincount(predictions[kept], minlength=self.num_classes)
        top = _TopClass.from_predictions(held, int((predictions == targets)[kept].sum()), predicted)
        skill = BaselineShares.from_targets(targets, self.num_classes, NO_LABEL).skill(top.accuracy)
        return skill, variation(predictions, targets, self.num_classes, NO_LABEL), top
