"""Learning rate range test (`--lr auto`): short runs at several rates from the same initial parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from ..errors import UserCodeError
from ..model.state import Snapshot
from ..recipe import Recipe
from .setup import ReadyModel
from .stepper import Stepper

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
"""From far below to far above what networks need; the neighbour of a good rate is good as well."""
STEPS = 12
"""Twice the default warm-up, so that each rate reaches its full size."""
NEAR = 1.1
"""A lower rate is taken where its loss is at most this multiple of the lowest: a fast start may not stay stable."""


@dataclass(frozen=True)
class RangeTest:
    """Result of a range test: the chosen rate, and the loss of every rate."""

    rate: float
    losses: tuple[tuple[float, float | None], ...]
    """(rate, loss after `STEPS` updates); None where it was not finite, or the model raised."""

    def __str__(self) -> str:
        low, high = self.losses[0][0], self.losses[-1][0]
        return f"{self.rate:g} of {len(self.losses)} rates from {low:g} to {high:g}, by the loss after {STEPS} updates"


def range_test(ready: ReadyModel, recipe: Recipe, seed: int, graph: bool = False) -> RangeTest | None:
    """Make the first steps at each rate and choose one; None where the recipe states a rate.

    After Smith 2017, "Cyclical learning rates for training neural networks" (section 3.3), who raises the rate along
    one run: on one batch the loss falls so fast that such a run mostly shows the number of its steps.

    Leaves the model as it was, and torch's global generator at `seed`.
    """
    if recipe.lr != "auto":
        return None
    start = Snapshot.from_model(ready.model)
    losses = []
    for rate in RATES:
        torch.manual_seed(seed)
        _, stepper = ready.build_stepper(replace(recipe, lr=rate), torch.Generator().manual_seed(seed), graph)
        losses.append((rate, _loss(stepper, min(STEPS, recipe.iterations))))
        start.restore(ready.model)
    torch.manual_seed(seed)
    finite = [(rate, loss) for rate, loss in losses if loss is not None]
    if not finite:
        return RangeTest(RATES[0], tuple(losses))
    least = min(loss for _, loss in finite)
    return RangeTest(next(rate for rate, loss in finite if loss <= NEAR * least), tuple(losses))


def _loss(stepper: Stepper, steps: int) -> float | None:
    try:
        for updates in range(steps):
            stepper.measure(updates)
            _, norm = stepper.update(updates)
            if not math.isfinite(norm):
                return None
        loss = stepper.measure(steps).loss
    except UserCodeError:
        return None  # a model that raises at every rate also raises in the run, which reports it
    return loss if math.isfinite(loss) else None
