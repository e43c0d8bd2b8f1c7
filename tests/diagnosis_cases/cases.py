"""List of all cases: failing runs, and passing runs of four kinds of grids, four networks and unusual settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from torch import nn

from tests.diagnosis_cases import bad_data, bad_models, bad_settings
from tests.diagnosis_cases.case import PassingRun, seeded_build
from tests.diagnosis_cases.examples import transformer, unet
from tests.diagnosis_cases.grids import grids, weights
from tests.diagnosis_cases.mlp import Mlp
from vaefit.vae.model.beta_vae import BetaVAE
from vaefit.vae.recipe import RECIPES, Recipe

FAILING = (*bad_models.CASES, *bad_settings.CASES, *bad_data.CASES)

DATA = {
    "16 x 16, 10 classes": (16, 16, 16, 10),
    "8 x 8, 2 classes": (16, 8, 8, 2),
    "33 x 9, 10 classes": (12, 33, 9, 10),
    "30 x 30, 21 classes": (8, 30, 30, 21),
}
"""Size of the batch, height, width, classes."""
OWN_INIT = Recipe(init=None, lr=3e-3)
SETTINGS = {
    "recipe adam": RECIPES["adam"],
    "sampled z, beta 0.01": Recipe(z="sample", beta=0.01),
    "torch's initialisation": Recipe(init="default"),
    "no weights, resampled": Recipe(weights="none", resample=True),
}
"""Recipes of the built-in network, one for each kind of grids."""


def _network(name: str, height: int, width: int, classes: int) -> nn.Module:
    if name == "BetaVAE":
        return BetaVAE(classes, height, width)
    if name == "transformer":
        return transformer(classes, height, width)
    return unet(classes) if name == "U-Net" else Mlp(side=height, width=width, classes=classes)


def _runs() -> Iterator[PassingRun]:
    for (data, shape), (setting, recipe) in zip(DATA.items(), SETTINGS.items(), strict=True):
        batch, weight = partial(grids, *shape), weights(*shape[1:])
        for network in ("BetaVAE", "transformer", "U-Net", "dense"):
            usual = Recipe() if network == "BetaVAE" else OWN_INIT
            yield PassingRun(
                f"{network}, {data}", seeded_build(partial(_network, network, *shape[1:]), batch, usual, weight)
            )
        changed = replace(recipe, iterations=500)
        make = partial(_network, "BetaVAE", *shape[1:])
        yield PassingRun(f"BetaVAE, {data}, {setting}", seeded_build(make, batch, changed, weight))


PASSING = tuple(_runs())
