"""`--lr auto`: a short race of learning rates from the same initial parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from ..model.state import Snapshot
from ..recipe import Recipe
from .stepper import Stepper

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
"""Far below and far above what networks need; the next one to a good rate is good as well."""
STEPS = 12
"""Twice the default warm-up, so that a rate is seen at its full size."""
NEAR = 1.1
"""A lower rate is taken where its loss is below this share of the lowest: what runs fast early may not stay stable."""


@dataclass(frozen=True)
class RangeTest:
    """The rate that was taken, and the loss that each one came to."""

    rate: float
    losses: tuple[tuple[float, float | None], ...]
    """(rate, loss after `STEPS` updates); None where it was not finite."""

    def __str__(self) -> str:
        low, high = self.losses[0][0], self.losses[-1][0]
        return f"{self.rate:g} of {len(self.losses)} rates from {low:g} to {high:g}, by the loss after {STEPS} updates"


def range_test(
    model: nn.Module, recipe: Recipe, motion: Callable[[Recipe], Stepper], reseed: Callable[[], None]
) -> RangeTest:
    """Make the first steps at each rate and choose one; the model is left as it was.

    The range test of Smith 2017, "Cyclical learning rates for training neural networks" (section 3.3), raises the rate
    along one run; here each rate starts anew, for on one batch the loss falls so fast that a single run mostly shows
    how far it has got.

    Args:
        motion: makes the steps of the model under a recipe.
        reseed: puts the random numbers back to where the run starts: every rate sees the same, and so does the run.
    """
    start = Snapshot.from_model(model)
    losses = []
    for rate in RATES:
        trial = replace(recipe, lr=rate)
        reseed()
        losses.append((rate, _loss(motion(trial), min(STEPS, recipe.iterations))))
        start.restore(model)
    reseed()
    finite = [(rate, loss) for rate, loss in losses if loss is not None]
    if not finite:
        return RangeTest(RATES[0], tuple(losses))
    least = min(loss for _, loss in finite)
    return RangeTest(next(rate for rate, loss in finite if loss <= NEAR * least), tuple(losses))


def _loss(motion: Stepper, steps: int) -> float | None:
    for updates in range(steps):
        motion.measure(updates)
        _, norm = motion.update(updates)
        if not math.isfinite(norm):
            return None
    loss = motion.measure(steps).loss
    return loss if math.isfinite(loss) else None
