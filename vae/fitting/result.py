"""What a run leaves behind: a record of each step, and the result."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.batch import Batch
from ..data.class_weights import ClassWeights
from ..metrics.accuracy import Accuracies, BaselineShares
from ..metrics.diagnosis import Diagnosis
from ..metrics.verdict import Judgement, Verdict
from ..objective.agreement import Agreement
from ..recipe import Recipe
from .frames import Frames
from .run_setup import RunHeader


@dataclass(frozen=True)
class Record:
    """One row of `metrics.csv`: the model after `step` updates, measured on the fixed batch with z = mu."""

    step: int
    loss: float
    focal: float
    kl: float | None
    accuracies: Accuracies
    beta: float
    lr: float | None = None
    """Rate of the update that follows; None, like the next two, where none does."""
    train_loss: float | None = None
    """Objective of the grids that this step drew; equal to `loss` where the batch is fixed and z = mu."""
    grad_norm: float | None = None
    """Norm of the gradient before it was clipped."""


@dataclass(frozen=True)
class Reached:
    """Updates done when the reconstruction of the whole batch first got there; 0 = untrained, None = never."""

    pixel_95: int | None = None
    worst_class_95: int | None = None
    exact: int | None = None


@dataclass(frozen=True)
class OverfitResult:
    """The outcome of `overfit`: the verdict, what it rests on, and every step on the way."""

    judgement: Judgement
    iterations: int
    """Updates done."""
    reached: Reached
    accuracies: Accuracies
    """Of the final reconstruction."""
    confusion: NDArray[np.int64]
    """(C, C) counts of the final reconstruction, row = target, column = prediction."""
    shares: BaselineShares
    skill: float | None
    retrieval: float | None
    distinct_pictures: int
    batch: Batch
    weights: ClassWeights
    recipe: Recipe
    backend: str
    start: RunHeader
    """What was found before the first step."""
    seconds: float
    history: tuple[Record, ...]
    predictions: NDArray[np.int64]
    """(B, H, W), the final reconstruction."""
    film: Frames
    ignore_index: int | None
    diagnosis: Diagnosis | None = None
    """Why it failed; None where it passed, and where nobody asked."""

    @property
    def verdict(self) -> Verdict:
        """MEMORISED, LEARNING, COLLAPSED or DIVERGED."""
        return self.judgement.verdict

    @property
    def preflight(self) -> Agreement | None:
        """How far the loss is from its float64 reference on this batch; see `RunHeader`."""
        return self.start.preflight

    @property
    def passed(self) -> bool:
        """True for MEMORISED alone."""
        return self.judgement.passed

    @property
    def class_accuracy(self) -> tuple[float | None, ...]:
        """Recall of each class; None for one that the batch does not hold."""
        return self.accuracies.classes

    def predicted_steps(self, label: int) -> tuple[int, int] | None:
        """The first and the last step at which any cell was predicted as `label`; None if none ever was."""
        steps = [r.step for r in self.history if r.accuracies.predicted[label] > 0]
        return (steps[0], steps[-1]) if steps else None
