"""Progress of a training run: its plan, its state, its rows, and the interface of its recorder."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from .checkpoint import Checkpoint
from .running_mean import Average
from .validation import Validation


@dataclass(frozen=True)
class StepsRow:
    """A row of `steps.csv`: the mean of the updates since the previous row."""

    step: int
    """Updates done."""
    epoch: int
    """The epoch of the last of these updates; the first epoch is 1."""
    lr: float
    """Rate of the last update, like `beta`."""
    beta: float
    average: Average


@dataclass(frozen=True)
class ValidationRow:
    """A row of `metrics.csv`: the model after `step` updates, measured on the validation split."""

    step: int
    epoch: int
    """The current epoch; 0 before the first update."""
    lr: float | None
    """Rate of the last update; None before the first update."""
    beta: float
    training: Average | None
    """Mean of the updates since the previous row; None before the first update."""
    validation: Validation


@dataclass(frozen=True)
class BestValidation:
    """Best validation so far, by macro accuracy."""

    step: int
    epoch: int
    macro: float


class RunRecorder:
    """Base of run recorders: receives rows, weights and checkpoints, and writes nothing, as ranks other than 0 do."""

    def steps_row(self, row: StepsRow) -> None:
        """Add a row to `steps.csv`."""

    def validation_row(self, row: ValidationRow) -> None:
        """Add a row to `metrics.csv`."""

    def best(self, model: nn.Module, best: BestValidation) -> None:
        """Write the weights, the best so far."""

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write the state; a full disk is only logged where an earlier state exists."""


@dataclass
class Progress:
    """State of a run: its updates, its best validation, and the reason of its end."""

    step: int = 0
    """Updates done."""
    stale: int = 0
    """Validations since the best validation."""
    best: BestValidation | None = None
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    diverged: str | None = None
    stopped: str | None = None
    """Reason why training ended before its last update; None where it did not."""
    finished: bool = False


@dataclass(frozen=True)
class Plan:
    """Schedule of a run, in updates."""

    updates: int
    """Updates of the whole run."""
    epoch: int
    """Updates of an epoch."""
    validate_every: int
    patience: int | None
    checkpoint_seconds: float


@dataclass(frozen=True)
class ChosenRate:
    """Learning rate of a run."""

    lr: float
    reason: str | None
    """Result of the range test that chose the rate, in words; None where the recipe states it."""
