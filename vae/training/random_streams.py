"""The random numbers of a training run, each drawn from the run's seed and its place alone.

Nothing is drawn from a generator that goes on from step to step. So a run that is resumed at a step draws what it would
have drawn there without the interruption, and there is no state of a generator to be kept.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_AUGMENTATION, _TORCH, _NOISE = 1, 2, 3


def augmentation_generator(seed: int, step: int) -> np.random.Generator:
    """What the augmentation of the update after `step` updates draws from."""
    return np.random.default_rng([_AUGMENTATION, seed, step])


def seed_torch(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch's own generators, from which a model of one's own may draw, for the update after `step` updates.

    Each rank draws other numbers: they are for other grids.
    """
    torch.manual_seed(_number(_TORCH, seed, step, *([rank] if rank else [])))


def latent_noise(seed: int, step: int, shape: tuple[int, int]) -> Tensor:
    """Standard normal noise (B, latent) on the CPU for the update after `step` updates."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(_number(_NOISE, seed, step)))


def _number(*place: int) -> int:
    return int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1)
