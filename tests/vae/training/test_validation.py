"""Tests of validation: its measures are those that numpy finds over the whole split at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vaefit.cache.errors import DataError
from vaefit.vae.metrics.accuracy import Accuracies, BaselineShares
from vaefit.vae.model.adapter import find_adapter
from vaefit.vae.model.beta_vae import BetaVAE
from vaefit.vae.objective.objective import Objective
from vaefit.vae.optim.train_step import Step
from vaefit.vae.recipe import Recipe
from vaefit.vae.training.validation import ACTIVE, SHOWN, Validator


@pytest.fixture(scope="module")
def step_of(grids):
    """A step on an untrained model."""

    def build(reduction="batch", ignore_index=None, classes=10):
        torch.manual_seed(1)
        model = BetaVAE(classes, 8, 8, latent_dim=5)
        with torch.no_grad():
            model.mu.weight[2].zero_()  # a dimension that does not depend on the grid
        labels = torch.from_numpy(grids[:2].astype(np.int64))
        recipe = Recipe(reduction=reduction)
        weights = np.linspace(0.2, 2, classes)
        objective = Objective.build(weights, recipe, ignore_index, "auto", torch.device("cpu"))
        return Step.build(model, find_adapter(model, labels, classes, None, ignore_index), objective, recipe)

    return build


def measured(step, grids, batch, ignore_index=None, beta=0.0):
    def split():
        return iter([grids[i : i + batch] for i in range(0, len(grids), batch)])

    return Validator(step, split, len(grids), ignore_index).measure(beta)


def test_the_divergence_is_a_mean_over_grids_whatever_cells_are_ignored(step_of, grids):
    cells = grids.copy()
    cells[:100][cells[:100] > 0] = 3  # class 3 is ignored: of the first half much
    cells[:100, :6] = 3
    step = step_of("mean", 3)
    with torch.no_grad():
        step.model.mu.weight.mul_(50)
    found = measured(step, cells, 50, 3, beta=0.5)
    assert found.loss == pytest.approx(found.focal + 0.5 * found.kl, rel=1e-4)
    alone = measured(step, cells[:100], 50, 3, beta=0.5)
    assert abs(alone.kl - found.kl) > 1e-3 * found.kl  # or a mean over cells would be the same


@pytest.mark.parametrize("batch", [1, 7, 64, 200])
@pytest.mark.parametrize("reduction", ["batch", "mean"])
@pytest.mark.parametrize("ignore_index", [None, 3])
def test_batches_make_no_difference(step_of, grids, batch, reduction, ignore_index):
    step = step_of(reduction, ignore_index)
    found = measured(step, grids, batch, ignore_index, beta=0.5)
    labels = torch.from_numpy(grids.astype(np.int64))
    with torch.no_grad():
        losses = step.forward(step.adapter.inputs(labels, step.model), labels, 0.5)
        mu, logvar = step.model.encode(labels)
    predictions = losses.logits.argmax(1).numpy()
    kept = np.ones(grids.shape, bool) if ignore_index is None else grids != ignore_index
    confusion = np.zeros((10, 10), np.int64)
    np.add.at(confusion, (grids[kept], predictions[kept]), 1)
    assert found.grids == 200
    assert np.array_equal(found.confusion, confusion)
    assert found.accuracies.classes == Accuracies.from_confusion(confusion).classes
    shares = BaselineShares.from_targets(grids.astype(np.int64), 10, ignore_index)
    assert found.shares == shares
    assert found.skill == shares.skill(found.accuracies.pixel)
    assert found.loss == pytest.approx(losses.total.item(), rel=1e-5)
    assert found.focal == pytest.approx(losses.focal.item(), rel=1e-5)
    each = (0.5 * (mu.square() + logvar.exp() - 1 - logvar)).mean(0)
    assert found.kl_dimensions == pytest.approx(each.tolist(), rel=1e-5, abs=1e-6)
    assert found.kl == pytest.approx(float(each.sum()), rel=1e-5)
    assert found.active_dimensions == int((mu.var(0, correction=0) > ACTIVE).sum())


def test_a_dimension_that_ignores_the_grid_is_not_active(step_of, grids):
    step = step_of()
    with torch.no_grad():
        mu, _ = step.model.encode(torch.from_numpy(grids.astype(np.int64)))
        # far from where mu is clamped, and as wide as a trained one
        step.model.mu.bias.sub_(mu.mean(0)).div_(mu.std(0).amax())
        step.model.mu.weight.div_(mu.std(0).amax())
    assert measured(step, grids, 50).active_dimensions == 4


def test_the_shown_grids_are_spread_evenly_and_reconstructed(step_of, grids):
    step = step_of()
    found = measured(step, grids, 33)
    assert found.shown == tuple(i * 200 // SHOWN for i in range(SHOWN))
    assert np.array_equal(found.targets, grids[list(found.shown)])
    with torch.no_grad():
        logits = step.model.reconstruct(torch.from_numpy(grids.astype(np.int64)))
    assert np.array_equal(found.predictions, logits.argmax(1).numpy()[list(found.shown)])
    assert measured(step, grids[:5], 2).shown == (0, 1, 2, 3, 4)


def test_the_model_is_left_in_its_modes(step_of, grids):
    step = step_of()
    step.model.encoder.eval()
    measured(step, grids[:4], 4)
    assert step.model.training
    assert not step.model.encoder.training


def test_a_split_of_ignored_cells_is_an_error(step_of, grids):
    with pytest.raises(DataError, match="every cell of the split is ignored"):
        measured(step_of(ignore_index=3), np.full((3, 8, 8), 3, np.uint8), 2, ignore_index=3)
