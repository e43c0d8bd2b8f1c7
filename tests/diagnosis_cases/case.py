"""A run whose cause of failure is known, as data."""

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
class Subject:
    """Everything that one call of `overfit` needs."""

    model: nn.Module
    batch: Labels
    """(B, H, W): what the model is fed, and without `targets` what it has to give back."""
    recipe: Recipe
    weights: NDArray[np.float64] | None = None
    """(C,); None leaves them to be derived from the batch."""
    targets: Labels | None = None
    """(B, H, W), where they are not the batch itself."""

    def keywords(self) -> dict[str, Any]:
        """The keyword arguments of `overfit`; `targets` only where there are any."""
        found: dict[str, Any] = {"recipe": self.recipe, "weights": self.weights}
        return found if self.targets is None else {**found, "targets": self.targets}


Build = Callable[[], Subject]
"""Makes the subject anew, with the same parameters each time: a run trains its model in place."""


@dataclass(frozen=True)
class Case:
    """A run that does not end MEMORISED, and why."""

    name: str
    cause: Cause
    where: str | None
    """The layer or the setting that is at fault; None where the cause says all."""
    build: Build
    mend: Build
    """The same run without the cause, which ends MEMORISED: that is what makes the cause known."""


@dataclass(frozen=True)
class HealthyRun:
    """A run that ends MEMORISED, which no diagnosis may call sick."""

    name: str
    build: Build


def subject(
    make: Callable[[], nn.Module],
    batch: Callable[[], Labels],
    recipe: Recipe,
    weights: NDArray[np.float64] | None = None,
    targets: Callable[[], Labels] | None = None,
) -> Build:
    """A build whose model is made from the same random numbers each time."""

    def build() -> Subject:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = make()
        return Subject(model, batch(), recipe, weights, None if targets is None else targets())

    return build
