"""The network of a run, built for the grids of its dataset."""

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
    """Our network, or the user's own, whose parameters are drawn by the run's seed; on its device."""
    if loaded is None:
        model = BetaVAE(classes, height, width, latent_dim or DEFAULT_LATENT)
        # channels last lets the CPU's convolutions run without repacking
        return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
    with seeded(seed, device):
        return loaded.build(classes, height, width, latent_dim).to(device)
