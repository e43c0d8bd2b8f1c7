"""Failed run: the model, the batch and the settings of one run, for probes and reruns."""

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
from ..model.network import device_of
from ..model.state import Snapshot
from ..recipe import Init, Recipe


@dataclass(frozen=True)
class FailedRun:
    """A failed run. Probes and reruns change the parameters of the model; callers must restore them."""

    model: nn.Module
    adapter: Adapter
    batch: Batch
    weights: ClassWeights
    recipe: Recipe
    ignore_index: int | None
    seed: int
    backend: Backend
    before: Snapshot
    """State of the model before any initialisation."""
    result: OverfitResult

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return device_of(self.model)

    def inputs(self) -> Tensor:
        """Return the inputs of the model, on its device."""
        return self.adapter.inputs(torch.from_numpy(self.batch.grids).to(self.device), self.model)

    def targets(self) -> Tensor:
        """Return the labels (B, H, W) int64 on the model's device."""
        return torch.from_numpy(self.batch.targets).to(self.device)

    def start(self, init: Init | None) -> None:
        """Put the model into the state of the first step under an initialisation; None keeps its own parameters."""
        self.before.restore(self.model)
        if init is None:
            return
        inputs = self.inputs()
        initialise(self.model, init, lambda: self.adapter.outputs(self.model, inputs), self.seed)
