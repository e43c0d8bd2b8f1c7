"""What an update takes on one rank, and what it has to exchange with the others."""

from __future__ import annotations

import numpy as np
import torch

from vaefit.vae import RECIPES, BetaVAE

from ..counting.layouts import CLASSES, SIDE, make_cells
from ..loops import Problem, ours
from ..threads import cpu_threads
from .figures import Measured, TrainingFigures

DOUBLE = 8


def measure_training(batch: int, rounds: int, steps: int) -> TrainingFigures:
    """Updates of the default recipe on one thread; of so many steps a round, the first and the last are left out."""
    model = BetaVAE(CLASSES, SIDE, SIDE)
    targets = torch.from_numpy(make_cells(batch).astype(np.int64))
    problem = Problem(model, targets, torch.ones(CLASSES))
    with cpu_threads(1):
        # the last record comes after the last update, so before it lies no backward pass
        taken = [1e3 * s for _ in range(rounds) for s in ours(problem, RECIPES["default"], steps)[1][:-1]]
    # loss, grids, confusion counts, and the KL of each latent dimension
    sums = 2 + CLASSES**2 + model.latent_dim
    return TrainingFigures(batch, sum(p.numel() for p in model.parameters()), Measured.of(taken), DOUBLE * sums)
