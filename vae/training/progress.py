"""Where a training run stands, what it tells on the way, and whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from .checkpoint import Checkpoint
from .running_mean import Average
from .validation import Validation


@dataclass(frozen=True)
class StepsRow:
    """A row of `steps.csv`: the mean of the updates since the row before."""

    step: int
    """Updates done."""
    epoch: int
    """The epoch of the last of them; the first one is 1."""
    lr: float
    """Of the last update, like the next."""
    beta: float
    average: Average


@dataclass(frozen=True)
class ValidationRow:
    """A row of `metrics.csv`: the model after so many updates, measured on the validation split."""

    step: int
    epoch: int
    """The epoch that was reached; 0 before the first update."""
    lr: float | None
    """Of the last update; None before the first one."""
    beta: float
    training: Average | None
    """Of the updates since the row before; None before the first one."""
    validation: Validation


@dataclass(frozen=True)
class BestValidation:
    """The best validation so far, by macro accuracy."""

    step: int
    epoch: int
    macro: float


class RunRecorder(Protocol):
    """Where a run's rows, weights and checkpoints go."""

    def steps_row(self, row: StepsRow) -> None:
        """Add a row to `steps.csv`."""

    def validation_row(self, row: ValidationRow) -> None:
        """Add a row to `metrics.csv`."""

    def best(self, model: nn.Module, best: BestValidation) -> None:
        """Keep the weights, which are the best so far."""

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Keep the state; a full disk is told, not raised, where an earlier state is kept."""


class Batches(Protocol):
    """Batches of an epoch, as a loader gives them."""

    steps: int
    batch_size: int
    """Grids of a batch."""
    rows: slice
    """Which of them are given here; the others are other ranks'."""

    def epoch(self, epoch: int, first: int = 0) -> Any:
        """An iterator over the batches (B, H, W) from number `first` on."""


@dataclass
class Progress:
    """How far a run is, and what it has found on the way."""

    step: int = 0
    """Updates done."""
    stale: int = 0
    """Validations since the best one."""
    best: BestValidation | None = None
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    diverged: str | None = None
    stopped: str | None = None
    """Why training ended before its last update; None where it did not."""
    finished: bool = False


@dataclass(frozen=True)
class Plan:
    """When things are done, in updates but for the last one."""

    updates: int
    """Of the whole run."""
    epoch: int
    """Of an epoch."""
    validate_every: int
    patience: int | None
    checkpoint_seconds: float


@dataclass(frozen=True)
class ChosenRate:
    """The learning rate of a run."""

    lr: float
    reason: str | None
    """How a range test chose it; None where it was given."""
