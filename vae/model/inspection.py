"""Inspection of a model on its first batch: adapter, initialisation, first logits."""

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
    """Adapter, inputs and first logits of an initialised model."""

    adapter: Adapter
    inputs: Tensor
    """The batch in the form that the model takes."""
    logits: Tensor
    """(B, C, H, W) of the initialised model, detached."""
    before: Snapshot | None
    """The model before its initialisation; None unless `keep`."""

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        labels: Tensor,  # (B, H, W) int64 on the model's device
        recipe: Recipe,
        seed: int,
        classes: int | None = None,
        guessed_classes: int | None = None,
        ignore_index: int | None = None,
        keep: bool = False,
    ) -> ModelInspection:
        """Find the model's adapter and initialise the model in place by the recipe and the seed.

        `classes`, `guessed_classes` and `ignore_index` are those of `find_adapter`. Raises RunError as `find_adapter`,
        and where no gradient leads from the logits to a parameter.
        """
        with seeded(seed, device_of(model)):
            adapter = find_adapter(model, labels, classes, guessed_classes, ignore_index)
            before = Snapshot.from_model(model) if keep else None
            inputs = adapter.inputs(labels, model)
            if recipe.init is not None:
                initialise(model, recipe.init, lambda: model(inputs))
            return cls(adapter, inputs, first_logits(model, adapter, inputs), before)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the parameters; RunError where no parameter requires a gradient."""
    parameter = next(model.parameters(), None)
    if parameter is None or not any(p.requires_grad for p in model.parameters()):
        do = "Pass a model with parameters that require a gradient."
        raise RunError("the model has no parameter that can learn", type(model).__name__, do=do)
    return parameter.device


def first_logits(model: nn.Module, adapter: Adapter, inputs: Tensor) -> Tensor:
    """Return the model's logits, detached; RunError where no gradient leads from them to a parameter."""
    with torch.set_grad_enabled(not adapter.ours):
        logits, _, _ = adapter.outputs(model, inputs)
    if not (adapter.ours or logits.requires_grad):
        do = "Look for an argmax, a detach or torch.no_grad in its forward."
        raise RunError("no gradient leads from the logits to any parameter", type(model).__name__, do=do)
    return logits.detach()


def described_model(model: nn.Module) -> str:
    """Return class and size of a model in words, with the number of frozen parameters."""
    total = sum(p.numel() for p in model.parameters())
    frozen = total - sum(p.numel() for p in model.parameters() if p.requires_grad)
    note = f", {frozen:,} of them frozen" if frozen else ""
    return f"{type(model).__name__}, {total:,} parameters{note}"
