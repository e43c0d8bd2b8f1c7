"""agreement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


TOLERANCE = 1e-5
"""Largest difference of a float32 loss or gradient from float64, relative to the largest value."""


@dataclass(frozen=True)
class Agreement:
    """How far a loss is from the float64 reference; `str()` gives the words of a run header.

    Loss and gradient are relative to the reference's largest value. That is taken for at least the weight of one cell,
    or of all: where a model is sure of every answer, what is left is rounding, and says nothing about the kernel.
    """

    loss: float
    gradient: float
    miscounted: int
    """Entries of the confusion counts that are not the reference's. It is 0 or an error: ties have an answer too."""
    loss_allowed: float = TOLERANCE
    gradient_allowed: float = TOLERANCE

    @property
    def loss_agrees(self) -> bool:
        """True where loss and gradient are as near as is allowed; NaN is not."""
        return self.loss <= self.loss_allowed and self.gradient <= self.gradient_allowed

    @property
    def agrees(self) -> bool:
        """True where loss, gradient and counts agree."""
        return self.loss_agrees and self.miscounted == 0

    def __str__(self) -> str:
        counts = "counts equal" if self.miscounted == 0 else f"{self.miscounted} of the counts differ"
        return f"loss {_short(self.loss)}, gradient {_short(self.gradient)}, {counts}"


def _short(value: float) -> str:
    return f"{value:.0e}" if value else "0"
