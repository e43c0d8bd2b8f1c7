"""The step of a model in float16 or bfloat16 is that of the model in float32, up to the rounding of the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from vaefit.vae import RECIPES, BetaVAE, Recipe, overfit
from vaefit.vae.model.adapter import find_adapter
from vaefit.vae.objective.objective import Objective
from vaefit.vae.optim.train_step import Step

GRIDS = np.random.default_rng(0).integers(0, 4, (8, 8, 8))
NARROW = [torch.float16, torch.bfloat16]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["default", "adam"])
@pytest.mark.parametrize("dtype", NARROW)
def test_a_narrow_model_learns_at_the_rates_of_a_wide_one(dtype: torch.dtype, name: str) -> None:
    recipe = replace(RECIPES[name], lr="auto", iterations=60)
    wide = overfit(BetaVAE(4, 8, 8), GRIDS, recipe=recipe)
    narrow = overfit(BetaVAE(4, 8, 8).to(dtype), GRIDS, recipe=recipe)
    assert narrow.verdict == "MEMORISED", narrow.judgement.reason
    assert narrow.start.range_test is not None
    assert wide.start.range_test is not None
    for (rate, found), (_, expected) in zip(narrow.start.range_test.losses, wide.start.range_test.losses, strict=True):
        if rate < 1e-3:  # from the same parameters, rounded
            assert found == pytest.approx(expected, rel=0.25), rate


@pytest.mark.parametrize("dtype", NARROW)
def test_small_updates_of_a_narrow_parameter_add_up_and_are_resumed(dtype: torch.dtype) -> None:
    def step_of(model: nn.Module) -> Step:
        return Step.build(model, find_adapter(model, labels, 4), Objective(torch.ones(4)), Recipe(optimizer="adam"))

    def update(step: Step, times: int) -> None:
        inputs = step.adapter.inputs(labels, step.model)
        for _ in range(times):
            step.update(step.forward(inputs, labels, 0.0), 1e-5)  # less than half the distance of two numbers near 0.5

    labels = torch.from_numpy(GRIDS)
    model, resumed = nn.Conv2d(4, 4, 1).to(dtype), nn.Conv2d(4, 4, 1).to(dtype)
    nn.init.constant_(model.weight, 0.5)
    start = model.weight.detach().clone()
    step = step_of(model)
    update(step, 1)
    assert torch.equal(model.weight, start)
    update(step, 20)
    resumed.load_state_dict(model.state_dict())
    other = step_of(resumed)
    other.load_state({name: tensor.clone() for name, tensor in step.optimizer_state().items()})
    update(step, 400)
    update(other, 400)
    torch.testing.assert_close(resumed.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert not torch.equal(model.weight, start)
