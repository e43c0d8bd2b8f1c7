"""Network of a run: build it, find its device, describe it."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ..environment.determinism import seeded
from ..errors import RunError
from .beta_vae import BetaVAE
from .user_model import DEFAULT_LATENT, LoadedModel


def build_network(
    loaded: LoadedModel | None,
    classes: int,
    height: int,
    width: int,
    latent_dim: int | None,
    seed: int,
    device: torch.device,
) -> nn.Module:
    """Build a BetaVAE, or the user's network with parameters drawn by the seed, on the device."""
    if loaded is None:
        model = BetaVAE(classes, height, width, latent_dim or DEFAULT_LATENT)
        # the CPU's convolutions need no repacking with channels last
        return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
    with seeded(seed, device):
        return loaded.build(classes, height, width, latent_dim).to(device)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the parameters; RunError where no parameter can learn."""
    name = type(model).__name__
    if not isinstance(model, nn.Module):
        do = (
            f"Pass {model.__name__}(...)."
            if isinstance(model, type)
            else "Pass an instance of a class derived from it."
        )
        raise RunError("the model is no torch.nn.Module", "model", name, do)
    parameters = list(model.parameters())
    if not any(p.requires_grad for p in parameters):
        do = "Pass a model with parameters that require a gradient."
        raise RunError("the model has no parameter that can learn", name, do=do)
    if any(not is_lazy(t) and t.is_inference() for t in chain(parameters, model.buffers())):
        do = "Build the model outside it, or load its state dict into one that was built outside."
        raise RunError("the model was made under torch.inference_mode, so no gradient can reach it", name, do=do)
    device = parameters[0].device
    if device.type == "meta":
        raise RunError("the parameters are on the device meta, which holds no numbers", name, do="Build it on another.")
    return device


def described_model(model: nn.Module) -> str:
    """Return class and size of a model in words, with the number of frozen parameters."""
    total = sum(p.numel() for p in model.parameters())
    frozen = total - sum(p.numel() for p in model.parameters() if p.requires_grad)
    note = f", {frozen:,} of them frozen" if frozen else ""
    return f"{type(model).__name__}, {total:,} parameters{note}"
