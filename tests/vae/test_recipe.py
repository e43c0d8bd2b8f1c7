"""The recipes, their schedules, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vaefit.cache.errors import SettingError
from vaefit.vae.recipe import RECIPES, BetaRamp, Recipe, recipe_with


def test_the_recipes_are_those_that_were_measured() -> None:
    default, adam, classic = RECIPES["default"], RECIPES["adam"], RECIPES["classic"]
    assert (default.init, default.resample, default.z, default.beta) == ("rescaled", False, "mu", 0.0)
    assert (default.gamma, default.weights, default.scheme) == (2.0, "global", "sqrt_inverse")
    assert (default.reduction, default.clip, default.stop_when) == ("batch", 1.0, "exact")
    assert (default.lr, default.betas, default.warmup, default.lr_decay) == (2e-3, (0.9, 0.95), 5, "isqrt")
    assert (default.optimizer, adam.optimizer, classic.optimizer) == ("muon", "adam", "adam")
    assert replace(default, optimizer="adam", warmup=10, decay_steps=50) == adam
    assert (classic.init, classic.resample, classic.z, classic.beta) == ("default", True, "sample", 0.0)
    assert (classic.gamma, classic.weights, classic.scheme) == (2.0, "global", "sqrt_inverse")
    assert (classic.reduction, classic.clip, classic.stop_when) == ("mean", 1.0, "never")
    assert (classic.lr, classic.betas, classic.warmup, classic.lr_decay) == (5e-4, (0.9, 0.999), 0, "none")
    assert default.iterations == classic.iterations == 500


def test_the_rate_warms_up_and_falls() -> None:
    adam = replace(RECIPES["adam"], lr=1.0)
    assert [adam.lr_at(s) for s in (0, 50, 150)] == pytest.approx([0.1, 2**-0.5, 0.5])
    muon = Recipe(lr=1.0)
    assert [muon.lr_at(s) for s in (0, 10, 30)] == pytest.approx([0.2, 2**-0.5, 0.5])
    cosine = Recipe(lr=1.0, warmup=0, lr_decay="cosine", iterations=100)
    assert [cosine.lr_at(s) for s in (0, 50, 100)] == pytest.approx([1.0, 0.5, 0.0])
    assert {replace(RECIPES["classic"], lr=1.0).lr_at(s) for s in (0, 7, 400)} == {1.0}


def test_beta_ramps_in_epochs_of_ten_steps() -> None:
    recipe = Recipe(beta_ramp=BetaRamp(warmup=2, ramp=4, maximum=0.8))
    assert [recipe.beta_at(s) for s in (0, 20, 30, 40, 60, 500)] == pytest.approx([0, 0, 0.2, 0.4, 0.8, 0.8])
    assert Recipe(beta_ramp=BetaRamp(0, 0, 0.5)).beta_at(1) == 0.5
    assert Recipe(beta=0.3).beta_at(0) == 0.3


@pytest.mark.parametrize(
    "change",
    [
        {"init": "xavier"}, {"z": "mean"}, {"weights": "local"}, {"scheme": "log"}, {"reduction": "none"},
        {"lr_decay": "step"}, {"optimizer": "sgd"}, {"decay_steps": 0}, {"stop_when": "done"}, {"beta": -1.0},
        {"gamma": float("nan")}, {"lr": 0.0}, {"betas": (0.9, 1.0)}, {"warmup": -1}, {"iterations": -1},
        {"target": 0.0}, {"target": 1.1}, {"free_bits": -0.1}, {"weights_power": 5.0}, {"clip": -0.1},
        {"smooth": float("inf")},
    ],
)  # fmt: skip
def test_a_wrong_value_names_its_field_in_python_and_its_option_in_the_command(change: dict[str, Any]) -> None:
    with pytest.raises(SettingError) as caught:
        replace(Recipe(), **change)
    (name,) = change
    assert caught.value.where == name
    with pytest.raises(SettingError) as caught:
        recipe_with("default", **change)
    assert caught.value.where == "--" + name.replace("_", "-")


def test_optimiser_is_an_alias_of_optimizer() -> None:
    adam = Recipe(optimizer="adam")
    assert Recipe(optimiser="adam") == adam  # type: ignore[call-arg]
    assert replace(Recipe(), optimiser="adam") == adam  # type: ignore[call-arg]
    assert replace(adam, lr=0.1).optimizer == adam.optimiser == "adam"
    with pytest.raises(SettingError, match=r"^optimizer: the value cannot be used"):
        Recipe(optimiser="sgd")  # type: ignore[call-arg]


def test_only_given_knobs_change_and_an_unknown_recipe_is_refused() -> None:
    assert recipe_with("classic", lr=None, beta=0.01) == replace(RECIPES["classic"], beta=0.01)
    with pytest.raises(SettingError, match="one of default, adam, classic"):
        recipe_with("new")
