"""Tests of validation over ranks: together they measure what one process measures."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.ranks_as_threads import together
from vaefit.cache.communicator import portion
from vaefit.vae.model.adapter import find_adapter
from vaefit.vae.model.beta_vae import BetaVAE
from vaefit.vae.objective.objective import Objective
from vaefit.vae.optim.train_step import Step
from vaefit.vae.recipe import Recipe
from vaefit.vae.training.validation import Validation, Validator

BATCH, GRIDS = 8, 41


def step_of(cells, recipe, ignore_index, model=None):
    torch.manual_seed(1)
    model = model or BetaVAE(10, 8, 8, latent_dim=5)
    labels = torch.from_numpy(cells[:2].astype(np.int64))
    objective = Objective.build(np.linspace(0.2, 2, 10), recipe, ignore_index, "auto", torch.device("cpu"))
    return Step.build(model, find_adapter(model, labels, 10, None, ignore_index), objective, recipe)


def batches(cells, rows, size):
    return lambda: iter([cells[i : min(i + size, rows.stop)] for i in range(rows.start, rows.stop, size)])


def assert_alike(left, right):
    for field in fields(Validation):
        a, b = getattr(left, field.name), getattr(right, field.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b)
        elif isinstance(a, (float, tuple)) and a:
            assert a == pytest.approx(b, rel=1e-5), field.name
        elif field.name == "accuracies":
            assert a.classes == b.classes
        else:
            assert a == b, field.name


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("reduction", ["batch", "mean", "sum"])
@pytest.mark.parametrize("ignoring", [False, True])
def test_the_numbers_are_those_of_one_process(grids, ranks, reduction, ignoring):
    cells = grids[:GRIDS].copy()
    if ignoring:
        cells[: GRIDS // 2] = 9  # of which a rank has nothing else
    ignored = 9 if ignoring else None

    def alone(recipe):
        split = batches(cells, slice(0, GRIDS), BATCH)
        return Validator(step_of(cells, recipe, ignored), split, GRIDS, ignored).measure(0.5)

    recipe = Recipe(reduction=reduction, beta=0.5)
    free = float(np.median(alone(recipe).kl_dimensions))  # a floor for some of the dimensions
    one = alone(replace(recipe, free_bits=free))
    assert one.loss > alone(recipe).loss
    steps = [step_of(cells, replace(recipe, free_bits=free), ignored) for _ in range(ranks)]  # by one generator

    def measured(rank):
        rows, own = portion(GRIDS, rank.rank, rank.size), portion(BATCH, rank.rank, rank.size)
        split = batches(cells, rows, own.stop - own.start)
        return Validator(steps[rank.rank], split, GRIDS, ignored, -(-GRIDS // BATCH), rank).measure(0.5)

    found = together(ranks, measured)
    assert len(found) == ranks
    for validation in found:
        assert_alike(validation, one)


def test_running_means_are_those_of_rank_0(grids):
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.last = nn.BatchNorm2d(10), nn.Conv2d(10, 10, 1)

        def forward(self, one_hot):
            return self.last(self.norm(one_hot))

    models = [Normed(), Normed()]
    models[1].load_state_dict(models[0].state_dict())
    steps = [step_of(grids, Recipe(), None, model) for model in models]

    def measured(rank):
        step, model = steps[rank.rank], models[rank.rank]
        with torch.no_grad():
            model.norm.running_mean.fill_(rank.rank)
        rows = portion(20, rank.rank, rank.size)
        found = Validator(step, batches(grids, rows, 20), 20, None, 1, rank).measure(0.0)
        return found.loss, model.norm.running_mean.tolist()

    (loss, means), (other, others) = together(2, measured)
    assert loss == other
    assert means == others == [0.0] * 10
