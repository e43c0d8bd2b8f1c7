"""The first look at a model, on its first batch: how it is called, its initialisation, its first logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..environment.determinism import seeded
from ..errors import RunError
from ..recipe import Recipe
from .adapter import Adapter, find_adapter
from .initialisation import initialise
from .state import Snapshot


@dataclass(frozen=True)
class ModelInspection:
    """A model that is ready for its first step."""

    adapter: Adapter
    inputs: Tensor
    """The batch as the model takes it."""
    logits: Tensor
    """(B, C, H, W) of the initialised model, detached."""
    before: Snapshot | None
    """The model before it was initialised, if that was to be kept."""

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        labels: Tensor,  # (B, H, W) int64 on the model's device
        recipe: Recipe,
        seed: int,
        classes: int | None = None,
        likely: int | None = None,
        ignore_index: int | None = None,
        keep: bool = False,
    ) -> ModelInspection:
        """Find out how the model is called, and initialise it in place as the recipe says, drawing by `seed`.

        `classes`, `likely` and `ignore_index` are those of `find_adapter`. Raises RunError as it does, and where no
        gradient leads from the logits to a parameter.
        """
        with seeded(seed, device_of(model)):
            adapter = find_adapter(model, labels, classes, likely, ignore_index)
            before = Snapshot.from_model(model) if keep else None
            inputs = adapter.inputs(labels, model)
            if recipe.init is not None:
                initialise(model, recipe.init, lambda: model(inputs))
            return cls(adapter, inputs, first_logits(model, adapter, inputs), before)


def device_of(model: nn.Module) -> torch.device:
    """The device of the parameters; RunError where none of them can learn."""
    parameter = next(model.parameters(), None)
    if parameter is None or not any(p.requires_grad for p in model.parameters()):
        do = "Pass a model with parameters that require a gradient."
        raise RunError("the model has no parameter that can learn", type(model).__name__, do=do)
    return parameter.device


def first_logits(model: nn.Module, adapter: Adapter, inputs: Tensor) -> Tensor:
    """The logits of the model as it is, without their graph; RunError where they have no gradient at all."""
    with torch.set_grad_enabled(not adapter.ours):
        logits, _, _ = adapter.outputs(model, inputs)
    if not (adapter.ours or logits.requires_grad):
        do = "Look for an argmax, a detach or torch.no_grad in its forward."
        raise RunError("no gradient leads from the logits to any parameter", type(model).__name__, do=do)
    return logits.detach()


def described_model(model: nn.Module) -> str:
    """Class and size of a model, in words; parameters that do not learn are told apart."""
    total = sum(p.numel() for p in model.parameters())
    frozen = total - sum(p.numel() for p in model.parameters() if p.requires_grad)
    apart = f", {frozen:,} of them frozen" if frozen else ""
    return f"{type(model).__name__}, {total:,} parameters{apart}"
