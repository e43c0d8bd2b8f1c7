"""Inspection of a model: its device, its first logits, and its description."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import RunError
from .adapter import Adapter


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
