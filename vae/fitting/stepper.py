"""What a run asks of the way in which its steps are made."""

from __future__ import annotations

from typing import Protocol

from ..metrics.accuracy import Labels
from ..objective.objective import Measured


class Stepper(Protocol):
    """Makes the steps of one run, each asked for in turn: measured, then updated."""

    def measure(self, updates: int) -> Measured:
        """Measure the model after `updates` updates."""

    def predictions(self) -> Labels:
        """The reconstruction (B, H, W) with z = mu of the model as it was last measured."""

    def update(self, updates: int) -> tuple[float, float]:
        """Make the next update; return the objective that it goes down, and its gradient's norm before it was clipped.

        Where one of them is not finite, no parameter changes.
        """

    def settle(self) -> None:
        """Leave the model as it was last measured or, where an update was not finite, as that update found it."""
