"""Errors that a Python caller reads name arguments and fields of `Recipe`; those of the command name options."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from torch import nn

from vaefit.vae import BetaVAE, assert_memorises, overfit
from vaefit.vae.python_words import python_words
from vaefit.vae.recipe import RECIPES, BetaRamp, Recipe

GRIDS = np.random.default_rng(0).integers(0, 4, (4, 8, 8))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("try --lr 0.002.", "try recipe=Recipe(lr=0.002)."),
        ("Try --lr 1e-05 --init rescaled.", "Try recipe=Recipe(lr=1e-05, init='rescaled')."),
        ("try --beta-ramp 0,0,0.", "try recipe=Recipe(beta_ramp=BetaRamp(0, 0, 0))."),
        ("try --betas 0.9,0.95.", "try recipe=Recipe(betas=(0.9, 0.95))."),
        ("try --no-resample.", "try recipe=Recipe(resample=False)."),
        ("try --weights global instead of --weights-file.", "try weights=None."),
        ("try --weights none.", "try recipe=Recipe(weights='none')."),
        ("try --batch-size 32.", "try a batch of 32 grids."),
        ("Leave the option out, or pass --no-graph.", "Leave the option out, or pass graph=False."),
        ("Pass --backend eager, and report it", "Pass backend='eager', and report it"),
        ("--backend eager and --device cpu.", "backend='eager' and model.to('cpu')."),
        ("Build it with 5 classes, as by --model-arg, or pass --classes.", "Build it with 5 classes, or pass classes."),
        ("ends--well, --lr", "ends--well, lr"),
    ],
)
def test_each_option(option: str, words: str) -> None:
    assert python_words(option) == words


def failing(call: Any) -> str:
    with pytest.raises((ValueError, TypeError, AssertionError)) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize(
    ("fields", "wording"),
    [
        ({"optimiser": "sgd"}, r"^optimizer: .*\(got sgd\). Use one of adam, muon\.$"),
        ({"optimizr": "adam"}, r"^Recipe\(\) has no argument 'optimizr'. Did you mean 'optimizer'\?$"),
        ({"lr": None}, "^lr: .*number > 0, or auto"),
        ({"betas": 0.9}, "^betas: .*two numbers"),
        ({"betas": (0.9,)}, "^betas: .*two numbers"),
        ({"iterations": "5"}, "^iterations: .*whole number"),
        ({"clip": None}, "^clip: .*finite number"),
        ({"beta_ramp": (0, 1, 2)}, r"^beta_ramp: .*Use BetaRamp\(warmup"),
        ({"target": "high"}, "^target: .*a share"),
    ],
)
def test_a_wrong_recipe_is_one_sentence_in_python(fields: dict[str, Any], wording: str) -> None:
    assert re.search(wording, failing(lambda: Recipe(**fields)))


@pytest.mark.parametrize(
    ("arguments", "wording"),
    [
        ({"lr": 1}, r"belongs to the recipe. Pass recipe=Recipe\(lr=1\)"),
        ({"num_classes": 4}, "Did you mean 'classes'"),
        ({"recipe": "adam"}, r"Pass RECIPES\['adam'\]"),
        ({"graph": True}, "^graph: .*pass graph=False"),
        ({"ignore_index": 1, "batch": GRIDS * 0 + 1}, r"got ignore_index=1\). Choose other grids\.$"),
        ({"model": BetaVAE}, r"no torch.nn.Module.*Pass BetaVAE\(\.\.\.\)"),
        ({"model": nn.Conv2d(5, 5, 1), "classes": 4}, r"takes 5 channels: build it for 4 classes, or pass classes=5"),
    ],
)
def test_a_wrong_argument_is_one_sentence_in_python(arguments: dict[str, Any], wording: str) -> None:
    text = failing(lambda: overfit(**{"model": BetaVAE(4, 8, 8), "batch": GRIDS, **arguments}))
    assert re.search(wording, text)
    assert "--" not in text


def test_the_advice_of_a_failed_assertion_can_be_pasted_into_python() -> None:
    recipe = Recipe(lr=1e-7, iterations=60)
    text = failing(lambda: assert_memorises(BetaVAE(4, 8, 8), GRIDS, recipe=recipe, diagnose=False))
    pasted = re.search(r"try recipe=Recipe\((.*)\)\.$", text)
    assert pasted
    assert "--" not in text
    call = ast.parse(f"f({pasted[1]})", mode="eval").body
    assert isinstance(call, ast.Call)
    fields = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    assert assert_memorises(BetaVAE(4, 8, 8), GRIDS, recipe=replace(recipe, **fields)).passed


def test_a_model_of_ones_own_keeps_its_initialisation_in_the_advice() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1))
    recipe = replace(RECIPES["adam"], init=None, lr=1e-9, iterations=200, beta_ramp=BetaRamp(0, 0, 0.0))
    text = failing(lambda: assert_memorises(model, GRIDS, recipe=recipe, diagnose=False))
    assert "recipe=Recipe(init=None, lr=0.002)" in text
