"""Random streams of a training run: each draw depends on the run's seed and the step alone.

No generator lives longer than one step. So a resumed run draws the same numbers as an unstopped run, and a checkpoint
holds no state of a generator.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..environment.determinism import normal_noise

_AUGMENTATION, _TORCH, _NOISE = 1, 2, 3


def augmentation_generator(seed: int, step: int) -> np.random.Generator:
    """Return the generator of the augmentation for the update after `step` updates."""
    return np.random.default_rng([_AUGMENTATION, seed, step])


def seed_torch(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch's global generators, from which a user's model may draw, for the update after `step` updates.

    Each rank draws different numbers, because its grids differ.
    """
    torch.manual_seed(_number(_TORCH, seed, step, *([rank] if rank else [])))


def latent_noise(seed: int, step: int, shape: tuple[int, int]) -> Tensor:
    """Return standard normal noise (B, latent) on the CPU for the update after `step` updates."""
    return normal_noise(shape, _number(_NOISE, seed, step))


def _number(*place: int) -> int:
    return int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]) >> 1
