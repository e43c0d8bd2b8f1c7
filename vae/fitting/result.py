"""Result of a run: the run header, a record of each step, and the outcome."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from vaefit.cache import ShardCounts
from vaefit.kernels import BackendChoice

from ..data.batch import Batch
from ..data.class_weights import ClassWeights
from ..metrics.accuracy import Accuracies, BaselineShares
from ..metrics.diagnosis import Diagnosis
from ..metrics.verdict import Judgement, ModeGap, Verdict
from ..model.gradient_reach import NotUpdated
from ..objective.preflight import Agreement
from ..recipe import Recipe
from .frames import Frames
from .stepper import StepChoice

if TYPE_CHECKING:
    from ..model.adapter import Adapter
    from ..settings import CheckSettings
    from .lr_range_test import RangeTest


@dataclass(frozen=True)
class RunHeader:
    """Facts about a run that are known before its first step."""

    preflight: Agreement | None
    """None where no gradient of these settings is finite: nothing can be compared, and the run diverges."""
    steps: StepChoice
    model: str
    """Class and size of the model, in words."""
    adapter: Adapter
    range_test: RangeTest | None
    """None where the recipe states the rate."""


@dataclass(frozen=True)
class Record:
    """A row of `metrics.csv`: the model after `step` updates, measured on the fixed batch with z = mu."""

    step: int
    loss: float
    focal: float
    kl: float | None
    accuracies: Accuracies
    beta: float
    lr: float | None = None
    """Rate of the next update; None, like the next two fields, where none follows."""
    train_loss: float | None = None
    """Objective of the grids of this step; equal to `loss` where the batch is fixed and z = mu."""
    grad_norm: float | None = None
    """Norm of the gradient before clipping."""


@dataclass(frozen=True)
class Reached:
    """Updates done when the reconstruction of the whole batch first met each bar; 0 = untrained, None = never."""

    pixel_95: int | None = None
    worst_class_95: int | None = None
    exact: int | None = None


@dataclass(frozen=True)
class OverfitResult:
    """Outcome of `overfit`: the verdict, its evidence, and every step."""

    judgement: Judgement
    iterations: int
    """Updates done."""
    reached: Reached
    accuracies: Accuracies
    """Accuracies of the final reconstruction."""
    confusion: NDArray[np.int64]
    """(C, C) counts of the final reconstruction, row = target, column = prediction."""
    shares: BaselineShares
    skill: float | None
    retrieval: float | None
    variation: float | None
    distinct_pictures: int
    batch: Batch
    weights: ClassWeights
    recipe: Recipe
    backend: str
    start: RunHeader
    seconds: float
    history: tuple[Record, ...]
    predictions: NDArray[np.int64]
    """(B, H, W), the final reconstruction."""
    film: Frames
    ignore_index: int | None
    not_updated: NotUpdated
    """Parameters that no update changed."""
    interrupted: bool = False
    """`stop` ended the run, or its diagnosis: the verdict is that of the steps so far."""
    gap: ModeGap | None = None
    """Difference between training and evaluation mode that alone makes the run fail; None without one."""
    diagnosis: Diagnosis | None = None
    """Cause of the failure; None where the run passed or no diagnosis was requested."""

    @property
    def verdict(self) -> Verdict:
        """MEMORISED, LEARNING, COLLAPSED or DIVERGED."""
        return self.judgement.verdict

    @property
    def preflight(self) -> Agreement | None:
        """Difference between the loss and its float64 reference on this batch; see `RunHeader`."""
        return self.start.preflight

    @property
    def passed(self) -> bool:
        """True for MEMORISED alone."""
        return self.judgement.passed

    @property
    def class_accuracy(self) -> tuple[float | None, ...]:
        """Recall of each class; None for a class that is absent from the batch."""
        return self.accuracies.classes

    @property
    def without_gradient(self) -> tuple[str, ...]:
        """Names of the parameters that no update changed, frozen ones included."""
        return self.not_updated.names

    def predicted_steps(self, label: int) -> tuple[int, int] | None:
        """Return the first and the last step at which any cell was predicted as `label`; None if none ever was."""
        steps = [r.step for r in self.history if r.accuracies.predicted[label] > 0]
        return (steps[0], steps[-1]) if steps else None


@dataclass(frozen=True)
class Prepared:
    """Inputs of an overfit run before its network is built."""

    dataset: ShardCounts
    batch: Batch
    batch_counts: NDArray[np.int64]
    """(C,) cells of each class in the batch."""
    weights: ClassWeights
    backend: BackendChoice
    device: torch.device


@dataclass(frozen=True)
class OverfitRun:
    """A finished overfit run and its folder."""

    settings: CheckSettings
    prepared: Prepared
    result: OverfitResult
    run_dir: Path
    seconds: float
