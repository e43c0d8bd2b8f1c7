"""One step of fitting: forward, objective and counts, then backward, clip and Adam. Both loops use it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .adapter import outputs
from .objective import Losses, Objective
from .recipe import Recipe


@dataclass
class Step:
    """The step of one model under one objective."""

    model: nn.Module
    objective: Objective
    optimiser: torch.optim.Optimizer
    clip: float

    @classmethod
    def build(cls, model: nn.Module, objective: Objective, recipe: Recipe) -> Step:
        """A step with Adam as the recipe has it."""
        optimiser = torch.optim.Adam(model.parameters(), lr=recipe.lr, betas=recipe.betas, fused=True)
        return cls(model, objective, optimiser, recipe.clip)

    def forward(self, inputs: Tensor, targets: Tensor, beta: float, noise: Tensor | None = None) -> Losses:
        """Losses and confusion counts of a batch; `noise` (B, latent) samples z, None takes z = mu."""
        logits, mu, logvar = outputs(self.model, inputs, noise)
        return self.objective(logits, targets, mu, logvar, beta)

    def update(self, losses: Losses, lr: float) -> float:
        """Go down the gradient of the losses at rate `lr`; return the gradient's norm before it was clipped.

        A non-finite gradient is returned as such and changes no parameter.
        """
        self.optimiser.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        length = float(norm)
        if not math.isfinite(length):
            return length
        if self.clip > 0:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), self.clip, norm)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.step()
        return length
