"""Factory of the network of a run."""

from __future__ import annotations

import torch
from torch import nn

from ..environment.determinism import seeded
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
