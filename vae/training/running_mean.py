"""Running means of losses, gradient norms and accuracies over updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics.accuracy import Accuracies
from ..objective.objective import Losses


@dataclass(frozen=True)
class Average:
    """Means over some updates, measured on their training batches."""

    loss: float
    focal: float
    kl: float | None
    """None where the model gives no mu and logvar."""
    grad_norm: float
    accuracies: Accuracies | None
    """Over the cells of all these batches; None where every cell is ignored."""


@dataclass
class Tally:
    """Sums over updates: losses, gradient norms and confusion counts."""

    counts: NDArray[np.int64]
    """(C, C), row = target."""
    updates: int = 0
    loss: float = 0.0
    focal: float = 0.0
    kl: float | None = None
    grad_norm: float = 0.0

    @classmethod
    def empty(cls, classes: int) -> Tally:
        """Return the sums over no update."""
        return cls(np.zeros((classes, classes), np.int64))

    def add(self, losses: Losses, grad_norm: float) -> None:
        """Add one update; waits for the device."""
        found = losses.measured()
        self.merge(Tally(found.counts, 1, found.loss, found.focal, found.kl, grad_norm))

    def merge(self, other: Tally) -> None:
        """Add the sums over later updates."""
        self.updates += other.updates
        self.loss += other.loss
        self.focal += other.focal
        self.grad_norm += other.grad_norm
        if other.kl is not None:
            self.kl = (self.kl or 0.0) + other.kl
        self.counts += other.counts

    def average(self) -> Average | None:
        """Return the means over the updates; None where there is no update."""
        n = self.updates
        if n == 0:
            return None
        return Average(
            self.loss / n,
            self.focal / n,
            None if self.kl is None else self.kl / n,
            self.grad_norm / n,
            Accuracies.from_confusion(self.counts) if self.counts.any() else None,
        )

    def numbers(self) -> dict[str, Any]:
        """Return the sums without the counts, as JSON numbers."""
        return {name: value for name, value in vars(self).items() if name != "counts"}
