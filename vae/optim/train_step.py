"""One step of fitting: forward, objective and counts, then backward, clip and update. Both loops use it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..model.adapter import Adapter
from ..objective.objective import Losses, Objective
from ..recipe import Recipe
from .adam import Adam
from .muon import Muon, layouts

Loss = Callable[[Tensor, Tensor, Tensor | None, Tensor | None, float | Tensor], Losses]
"""An objective: logits, targets, mu, logvar and beta to losses."""


@dataclass
class Step:
    """The step of one model under one objective."""

    model: nn.Module
    adapter: Adapter
    objective: Objective
    optimisers: tuple[Adam | Muon, ...]
    """Each parameter belongs to one of them; all take one rate."""
    parameters: tuple[nn.Parameter, ...]
    """Those of the model that learn; looked up once, for a walk over the modules costs as much as clipping."""
    clip: float
    autocast: torch.dtype | None = None
    """What the model computes in where that is narrower than its parameters; None leaves it to the model."""

    @classmethod
    def build(
        cls,
        model: nn.Module,
        adapter: Adapter,
        objective: Objective,
        recipe: Recipe,
        autocast: torch.dtype | None = None,
    ) -> Step:
        """A step with the recipe's optimiser. Muon moves matrices only, so Adam moves the other parameters."""
        matrices = layouts(model) if recipe.optimiser == "muon" else {}
        others = [p for p in model.parameters() if p not in matrices]
        optimisers = (Muon(matrices, recipe.betas[0]), Adam(others, recipe.betas))
        learning = tuple(p for p in model.parameters() if p.requires_grad)
        return cls(model, adapter, objective, optimisers, learning, recipe.clip, autocast)

    def forward(self, inputs: Tensor, targets: Tensor, beta: float | Tensor, noise: Tensor | None = None) -> Losses:
        """Losses and confusion counts of a batch; `noise` (B, latent) samples z, None takes z = mu."""
        return self.losses(self.objective, inputs, targets, beta, noise)

    def losses(
        self, objective: Loss, inputs: Tensor, targets: Tensor, beta: float | Tensor, noise: Tensor | None
    ) -> Losses:
        """The same by whatever objective."""
        if self.autocast is None:
            logits, mu, logvar = self.adapter.outputs(self.model, inputs, noise)
        else:
            with torch.autocast(inputs.device.type, self.autocast):
                logits, mu, logvar = self.adapter.outputs(self.model, inputs, noise)
            # a divergence of narrow numbers would be off by more than a dimension's share of it
            mu, logvar = (None if part is None else part.float() for part in (mu, logvar))
        return objective(logits, targets, mu, logvar, beta)

    def update(self, losses: Losses, lr: float) -> float:
        """Go down the gradient of the losses at rate `lr`; return the gradient's norm before it was clipped.

        A non-finite gradient is returned as such and changes no parameter.
        """
        norm = self.differentiate(losses)
        length = float(norm)
        if math.isfinite(length):
            device = norm.device
            # a graph reads its rate from memory, where Adam rounds it to float32; so must the loop, to end at the same
            self.move(norm, torch.tensor(lr, dtype=torch.float64, device=device) if device.type == "cuda" else lr)
        return length

    def differentiate(self, losses: Losses) -> Tensor:
        """Give every parameter its gradient and return the norm of them all; waits for no device."""
        for parameter in self.parameters:
            parameter.grad = None
        losses.total.backward()  # type: ignore[no-untyped-call]
        return nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])

    def move(self, norm: Tensor, lr: float | Tensor) -> None:
        """Clip the gradients, whose norm is known, and go down them; waits for no device.

        Args:
            lr: a number, or a float64 scalar on the device of the parameters.
        """
        if self.clip > 0:
            nn.utils.clip_grads_with_norm_(self.parameters, self.clip, norm)
        for optimiser in self.optimisers:
            optimiser.step(lr)

    def state(self) -> list[Tensor]:
        """Every tensor that a step changes in place: parameters and what the optimisers keep."""
        return [*self.parameters, *(kept for optimiser in self.optimisers for kept in optimiser.state())]

    def kept(self) -> dict[str, Tensor]:
        """What the optimisers keep, by `parameter.what`, to be written to a file; as it is, not copied."""
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        return {
            f"{names[parameter]}.{what}": tensor
            for optimiser in self.optimisers
            for parameter, part in optimiser.kept().items()
            for what, tensor in part.items()
        }

    def load(self, kept: Mapping[str, Tensor]) -> None:
        """Go on from what `kept` gave for the same model and recipe."""
        parameters = dict(self.model.named_parameters())
        found: dict[nn.Parameter, dict[str, Tensor]] = {}
        for name, tensor in kept.items():
            parameter, _, what = name.rpartition(".")
            found.setdefault(parameters[parameter], {})[what] = tensor
        for optimiser in self.optimisers:
            optimiser.load(found)
