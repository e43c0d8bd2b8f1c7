"""Stepper that makes and reads one step at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..environment.determinism import normal_noise
from ..errors import UserCodeError
from ..metrics.accuracy import Labels
from ..model.beta_vae import BetaVAE
from ..model.state import modes, set_modes
from ..objective.objective import Losses, Measured
from ..optim.train_step import Step
from ..recipe import Recipe

REPEATS = 50
"""Shuffled copies of the batch from which a resampled batch is drawn."""


class EagerStepper:
    """Stepper for every recipe, model and device."""

    leaves_gradients = True

    def __init__(self, step: Step, recipe: Recipe, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> None:
        self._step, self._recipe, self._inputs, self._targets = step, recipe, inputs, targets
        self._generator = generator
        self._order = torch.empty(0, dtype=torch.int64, device="cpu")
        # one forward pass serves both where the step trains on the measured batch; a user's model may have dropout
        self._shared = step.adapter.ours and not recipe.resample and recipe.z == "mu"
        self._modes = modes(step.model)
        self._losses: Losses | None = None
        self.raised: UserCodeError | None = None

    def measure(self, updates: int) -> Measured:
        """Measure the model after `updates` updates."""
        self._losses = self._measure(self._recipe.beta_at(updates))
        return self._losses.measured()

    def predictions(self) -> Labels:
        """Return the reconstruction (B, H, W) with z = mu of the model as it was last measured."""
        if self._losses is None:  # the update, which was not finite and changed nothing, has released them
            with torch.no_grad():
                self._losses = self._measure(0.0)
        return self._losses.logits.argmax(dim=1).cpu().numpy()

    def update(self, updates: int) -> tuple[float, float]:
        """Make the next update; return its objective, and the norm of its gradient before clipping."""
        losses = self._losses if self._shared else self._train_forward(self._recipe.beta_at(updates))
        assert losses is not None  # measured before
        loss = losses.total.item()
        try:
            norm = self._step.update(losses, self._recipe.lr_at(updates)) if math.isfinite(loss) else math.nan
        except UserCodeError as error:
            norm = self._not_finite(error)
        self._losses = None
        return loss, norm

    def settle(self) -> None:
        """Do nothing: the model is never ahead of the last measurement."""

    def _measure(self, beta: float) -> Losses:
        if self._shared:
            return self._step.forward(self._inputs, self._targets, beta)
        self._step.model.eval()
        with torch.no_grad():
            return self._forward(self._inputs, self._targets, beta)

    def _train_forward(self, beta: float) -> Losses:
        set_modes(self._step.model, self._modes)  # the caller may have changed them too, between two steps
        inputs, targets = self._inputs, self._targets
        if self._recipe.resample:
            rows = self._draw().to(targets.device)
            inputs, targets = inputs[rows], targets[rows]
        noise = None
        if self._recipe.z == "sample" and isinstance(self._step.model, BetaVAE):
            shape = (targets.shape[0], self._step.model.latent_dim)
            noise = normal_noise(shape, self._generator).to(targets.device)
        return self._forward(inputs, targets, beta, noise)

    def _forward(self, inputs: Tensor, targets: Tensor, beta: float, noise: Tensor | None = None) -> Losses:
        """Return the losses; those of NaN logits where the model raises because of values that are not finite."""
        try:
            return self._step.forward(inputs, targets, beta, noise)
        except UserCodeError as error:
            size, *sides = targets.shape
            shape = (size, self._step.adapter.classes, *sides)
            logits = torch.full(shape, self._not_finite(error), device=targets.device)
            return self._step.objective(logits, targets, None, None, 0.0)

    def _not_finite(self, error: UserCodeError) -> float:
        """Return NaN and keep the error where it is about values that are not finite; raise every other error."""
        if not error.not_finite:
            raise error
        self.raised = error
        return math.nan

    def _draw(self) -> Tensor:
        """Return the rows of the next B grids of the shuffled copies, which are shuffled again when used up."""
        size = self._targets.shape[0]
        if self._order.numel() < size:
            self._order = torch.randperm(REPEATS * size, generator=self._generator, device="cpu") % size
        rows, self._order = self._order[:size], self._order[size:]
        return rows
