"""A run that failed, with all that is needed to look at it and to run it again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vaefit.kernels import Backend

from ..data.batch import Batch
from ..data.class_weights import ClassWeights
from ..fitting.result import OverfitResult
from ..model.adapter import Adapter
from ..model.initialisation import initialise
from ..model.inspection import device_of
from ..model.state import Snapshot
from ..recipe import Init, Recipe


@dataclass(frozen=True)
class FailedRun:
    """A failed run. Its model is taken to other states; who looks at it puts the final one back."""

    model: nn.Module
    adapter: Adapter
    batch: Batch
    weights: ClassWeights
    recipe: Recipe
    ignore_index: int | None
    seed: int
    backend: Backend
    before: Snapshot
    """The model as it came, before any initialisation."""
    result: OverfitResult

    @property
    def device(self) -> torch.device:
        """Of the parameters."""
        return device_of(self.model)

    def inputs(self) -> Tensor:
        """What the model is fed."""
        return self.adapter.inputs(torch.from_numpy(self.batch.grids).to(self.device), self.model)

    def targets(self) -> Tensor:
        """(B, H, W) labels int64 on the model's device."""
        return torch.from_numpy(self.batch.targets).to(self.device)

    def start(self, init: Init | None) -> None:
        """Take the model to its start under an initialisation; None is the model as it came."""
        self.before.restore(self.model)
        if init is None:
            return
        inputs = self.inputs()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            initialise(self.model, init, lambda: self.model(inputs))
