"""Case: a run with a known outcome, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vaefit.vae.metrics.diagnosis import Cause
from vaefit.vae.recipe import Recipe

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class OverfitCall:
    """Arguments of one call of `overfit`."""

    model: nn.Module
    batch: Labels
    """(B, H, W) inputs, which are also the targets if `targets` is None."""
    recipe: Recipe
    weights: NDArray[np.float64] | None = None
    """(C,); None derives them from the batch."""
    targets: Labels | None = None
    """(B, H, W), if they are not the batch itself."""

    def keywords(self) -> dict[str, Any]:
        """Return the keyword arguments of `overfit`; `targets` only if it is set."""
        found: dict[str, Any] = {"recipe": self.recipe, "weights": self.weights}
        return found if self.targets is None else {**found, "targets": self.targets}


Build = Callable[[], OverfitCall]
"""Function that makes the call with a new model and the same parameters each time, as a run changes its model."""


@dataclass(frozen=True)
class Case:
    """A run that does not end MEMORISED, and its cause."""

    name: str
    cause: Cause
    where: str | None
    """The layer or the setting of the cause; None if the cause names all."""
    build: Build
    fixed: Build
    """The same run without the cause, which ends MEMORISED and so proves the cause."""


@dataclass(frozen=True)
class PassingRun:
    """A run that ends MEMORISED and must get no cause."""

    name: str
    build: Build


def seeded_build(
    make: Callable[[], nn.Module],
    batch: Callable[[], Labels],
    recipe: Recipe,
    weights: NDArray[np.float64] | None = None,
    targets: Callable[[], Labels] | None = None,
) -> Build:
    """Return a build whose model has the same random parameters each time."""

    def build() -> OverfitCall:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = make()
        return OverfitCall(model, batch(), recipe, weights, None if targets is None else targets())

    return build
