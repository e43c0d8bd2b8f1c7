"""Step of `overfit` and `train`: forward, objective and counts, then backward, clip and update."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..model.adapter import Adapter
from ..model.user_code import user_code
from ..objective.objective import Losses, Objective
from ..recipe import Recipe
from .adam import Adam
from .muon import Muon, layouts

NARROW = (torch.float16, torch.bfloat16)
Loss = Callable[[Tensor, Tensor, Tensor | None, Tensor | None, float | Tensor], Losses]
"""Objective: maps logits, targets, mu, logvar and beta to losses."""


@dataclass
class Step:
    """Step of one model under one objective."""

    model: nn.Module
    adapter: Adapter
    objective: Objective
    optimizers: tuple[Adam | Muon, ...]
    """Each parameter belongs to one of them; all have the same rate."""
    parameters: tuple[nn.Parameter, ...]
    """Parameters that require a gradient; listed once, because a walk over the modules costs as much as clipping."""
    wide: dict[nn.Parameter, nn.Parameter]
    """Float32 copy of each parameter in a narrower dtype: in float16 the squares of small gradients are 0, and Adam's
    update is then infinite. The optimizers update the copies, and each step rounds them into the parameters."""
    clip: float
    autocast: torch.dtype | None = None
    """Narrower dtype of the forward pass; None computes in the dtype of the parameters."""

    @classmethod
    def build(
        cls,
        model: nn.Module,
        adapter: Adapter,
        objective: Objective,
        recipe: Recipe,
        autocast: torch.dtype | None = None,
    ) -> Step:
        """Build a step with the recipe's optimizer. Muon updates matrices only, Adam the other parameters."""
        wide = {p: nn.Parameter(p.detach().float()) for p in model.parameters() if p.dtype in NARROW}
        matrices = layouts(model) if recipe.optimizer == "muon" else {}
        others = [wide.get(p, p) for p in model.parameters() if p not in matrices]
        muon = Muon({wide.get(p, p): layout for p, layout in matrices.items()}, recipe.betas[0])
        learning = tuple(p for p in model.parameters() if p.requires_grad)
        return cls(model, adapter, objective, (muon, Adam(others, recipe.betas)), learning, wide, recipe.clip, autocast)

    def forward(self, inputs: Tensor, targets: Tensor, beta: float | Tensor, noise: Tensor | None = None) -> Losses:
        """Return losses and confusion counts of a batch; `noise` (B, latent) samples z, None takes z = mu."""
        return self.losses(self.objective, inputs, targets, beta, noise)

    def losses(
        self, objective: Loss, inputs: Tensor, targets: Tensor, beta: float | Tensor, noise: Tensor | None
    ) -> Losses:
        """Return the same under another objective."""
        if self.autocast is None:
            logits, mu, logvar = self.adapter.outputs(self.model, inputs, noise)
        else:
            with torch.autocast(inputs.device.type, self.autocast):
                logits, mu, logvar = self.adapter.outputs(self.model, inputs, noise)
        return objective(logits, targets, mu, logvar, beta)

    def update(self, losses: Losses, lr: float) -> float:
        """Update the parameters at rate `lr`; return the norm of the gradient before clipping.

        A norm that is not finite is returned and changes no parameter.
        """
        with user_code(self.model):  # a function of the user's may raise in its backward
            norm = self.differentiate(losses)
        length = float(norm)
        if math.isfinite(length):
            device = norm.device
            # a CUDA graph reads the rate from memory, where Adam rounds it to float32: the loop must do the same
            self.apply(norm, torch.tensor(lr, dtype=torch.float64, device=device) if device.type == "cuda" else lr)
        return length

    def differentiate(self, losses: Losses) -> Tensor:
        """Compute every gradient and return their total norm; does not wait for the device."""
        for parameter in self.parameters:
            parameter.grad = None
        losses.total.backward()  # type: ignore[no-untyped-call]
        for parameter, copy in self.wide.items():
            copy.grad = None if parameter.grad is None else parameter.grad.float()
        return nn.utils.get_total_norm([p.grad for p in self._updated() if p.grad is not None])

    def apply(self, norm: Tensor, lr: float | Tensor) -> None:
        """Clip the gradients by their total norm and update the parameters; does not wait for the device.

        Args:
            lr: a number, or a float64 scalar on the device of the parameters.
        """
        if self.clip > 0:
            nn.utils.clip_grads_with_norm_(self._updated(), self.clip, norm)
        for optimizer in self.optimizers:
            optimizer.step(lr)
        with torch.no_grad():
            for parameter, copy in self.wide.items():
                parameter.copy_(copy)

    def _updated(self) -> tuple[nn.Parameter, ...]:
        """Return the parameters that the optimizers update."""
        return tuple(self.wide.get(p, p) for p in self.parameters) if self.wide else self.parameters

    def state(self) -> list[Tensor]:
        """Return every tensor that a step changes in place: parameters and optimizer state."""
        return [*self.parameters, *self.optimizer_state().values()]

    def optimizer_state(self) -> dict[str, Tensor]:
        """Return the optimizer state by `parameter.name`, not copied, for a checkpoint."""
        names = {self.wide.get(parameter, parameter): name for name, parameter in self.model.named_parameters()}
        state = {
            f"{names[parameter]}.{name}": tensor
            for optimizer in self.optimizers
            for parameter, part in optimizer.optimizer_state().items()
            for name, tensor in part.items()
        }
        return state | {f"{names[copy]}.wide": copy.detach() for copy in self.wide.values()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `optimizer_state` returned for the same model and recipe."""
        parameters = {name: self.wide.get(parameter, parameter) for name, parameter in self.model.named_parameters()}
        found: dict[nn.Parameter, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            parameter, _, part = name.rpartition(".")
            found.setdefault(parameters[parameter], {})[part] = tensor
        with torch.no_grad():
            for copy in self.wide.values():
                copy.copy_(found[copy].pop("wide"))
        for optimizer in self.optimizers:
            optimizer.load_state(found)
