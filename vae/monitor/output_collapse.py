"""Whether the output still depends on the input, told from counts and from the newest batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..metrics.accuracy import BaselineShares, Labels, retrieval
from ..metrics.verdict import COLLAPSE_RETRIEVAL, COLLAPSE_SKILL, ONE_CLASS
from ..objective.objective import NO_LABEL
from .class_recall import HELD_CELLS, ClassRows
from .warnings import Collapsed, TrainingWarning

IN_A_ROW = 2
"""Looks at which no dependence must be seen: one batch may hold grids that are hard to tell apart."""
RECOVERED_SKILL = 2 * COLLAPSE_SKILL


@dataclass(frozen=True)
class _Cover:
    """The most frequent class of some predictions."""

    label: int
    share: float
    accuracy: float
    """Pixel accuracy."""
    covers: bool
    """It is nearly all of the predictions, not of the targets, and they score hardly more than one class would."""

    @classmethod
    def from_predictions(cls, held: Labels, right: int, predicted: Labels) -> _Cover:
        """From cells held and predicted by class (C,), and how many are right; at least one cell."""
        label, cells = int(np.argmax(predicted)), int(held.sum())
        share, accuracy, majority = predicted[label] / cells, right / cells, held.max() / cells
        alike = accuracy <= majority + COLLAPSE_SKILL * (1 - majority)
        others = cells - held[label]
        covers = share >= ONE_CLASS and others > (1 - ONE_CLASS) * cells and others >= HELD_CELLS and alike
        return cls(label, float(share), float(accuracy), bool(covers))


class OutputCollapse:
    """Applies the rules of the verdict COLLAPSED (see verdict.py) during training, after `warmup` steps."""

    def __init__(self, num_classes: int, warmup: int, ignore_index: int | None) -> None:
        self.num_classes, self.warmup, self.ignore_index = num_classes, warmup, ignore_index
        self.blind = 0
        """Looks in a row at which no dependence was seen."""
        self.collapsed = False

    def look(self, step: int, new: ClassRows, batch: tuple[Labels, Labels] | None) -> list[TrainingWarning]:
        """Take in the rows of the newest steps, of which `step` is the last, and its (predictions, targets), if any."""
        held, predicted = new.held.sum(axis=0), new.predicted.sum(axis=0)
        cover = _Cover.from_predictions(held, int(new.right.sum()), predicted) if held.any() else None
        skill, nearest, shown = (None, None, None) if batch is None else self._measure(*batch)
        covers = cover is not None and cover.covers
        blind = covers
        if skill is not None and nearest is not None and batch is not None:
            blind |= skill <= COLLAPSE_SKILL and nearest <= max(COLLAPSE_RETRIEVAL, 1 / len(batch[0]))
        self.blind = self.blind + 1 if blind else 0
        if self.collapsed:
            self.collapsed = covers or (skill is not None and skill < RECOVERED_SKILL)
            return []
        seen = cover if covers else shown
        if step < self.warmup or seen is None or self.blind < IN_A_ROW:
            return []
        self.collapsed = True
        one = seen.share >= ONE_CLASS
        label, share = (seen.label, seen.share) if one else (None, None)
        return [Collapsed(step, label, skill, nearest, share, seen.accuracy)]

    def _measure(self, predictions: Labels, targets: Labels) -> tuple[float | None, float | None, _Cover | None]:
        """Skill, retrieval and cover of a batch (B, H, W); None for each that this batch cannot show."""
        kept = (targets >= 0) & (targets < self.num_classes)  # the counts leave other labels out, -100 among them
        if self.ignore_index is not None:
            kept &= targets != self.ignore_index
        if not kept.any():
            return None, None, None
        targets = np.where(kept, targets, NO_LABEL)
        held = np.bincount(targets[kept], minlength=self.num_classes)
        predicted = np.bincount(predictions[kept], minlength=self.num_classes)
        cover = _Cover.from_predictions(held, int((predictions == targets)[kept].sum()), predicted)
        skill = BaselineShares.from_targets(targets, self.num_classes, NO_LABEL).skill(cover.accuracy)
        return skill, retrieval(predictions, targets, NO_LABEL), cover
