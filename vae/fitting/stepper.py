"""Interface of a stepper: measure, update, predict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from ..errors import UserCodeError
from ..metrics.accuracy import Labels
from ..objective.objective import Measured


class Stepper(Protocol):
    """Makes the steps of one run: each step is measured, then updated."""

    leaves_gradients: bool
    """True if the parameters hold the gradients of an update after it."""
    raised: UserCodeError | None
    """Exception of the model about values that are not finite; the loss is then NaN. None where there was none."""

    def measure(self, updates: int) -> Measured:
        """Measure the model after `updates` updates."""

    def predictions(self) -> Labels:
        """Return the reconstruction (B, H, W) with z = mu of the model as it was last measured."""

    def update(self, updates: int) -> tuple[float, float]:
        """Make the next update; return its objective, and the norm of its gradient before clipping.

        Where either is not finite, no parameter changes.
        """

    def settle(self) -> None:
        """Leave the model as it was last measured or, where an update was not finite, as before that update."""


@dataclass(frozen=True)
class StepChoice:
    """Kind of the stepper and the reason for it; `str()` gives the text of a run header."""

    name: Literal["one by one", "graph"]
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"
