"""Failing cases with a good network, built-in or foreign: one wrong setting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tests.diagnosis_cases.case import Build, Case, seeded_build
from tests.diagnosis_cases.examples import transformer
from tests.diagnosis_cases.grids import CLASSES, SIDE, shared
from tests.diagnosis_cases.mlp import Mlp, SampledMlp
from vaefit.vae.model.beta_vae import BetaVAE
from vaefit.vae.recipe import RECIPES, BetaRamp, Recipe

GOOD = Recipe(iterations=150)
ADAM = replace(RECIPES["adam"], iterations=150)
OWN_INIT = Recipe(init=None, iterations=200)
OWN_ADAM = replace(RECIPES["adam"], init=None, iterations=200)
SAMPLED = replace(GOOD, z="sample")
PER_CELL = replace(ADAM, reduction="mean", z="sample")


def vae(
    recipe: Recipe,
    latent_dim: int = 32,
    weights: NDArray[np.float64] | None = None,
    prepare: Callable[[nn.Module], None] = lambda _: None,
) -> Build:
    """Build the built-in network with a recipe; `prepare` changes the network in place."""

    def make() -> nn.Module:
        model = BetaVAE(CLASSES, SIDE, SIDE, latent_dim)
        prepare(model)
        return model

    return seeded_build(make, shared, recipe, weights)


def mlp(
    recipe: Recipe, latent: int = 32, hidden: int = 128, prepare: Callable[[nn.Module], None] = lambda _: None
) -> Build:
    """Build the network of dense layers with a recipe."""

    def make() -> nn.Module:
        model = Mlp(latent, hidden)
        prepare(model)
        return model

    return seeded_build(make, shared, recipe)


def patches(recipe: Recipe) -> Build:
    """Build the transformer of the examples with a recipe."""
    return seeded_build(lambda: transformer(CLASSES, SIDE, SIDE), shared, recipe)


def normal(std: float) -> Callable[[nn.Module], None]:
    """Return a function that sets every parameter to normal numbers of this standard deviation, which may be 0."""

    def prepare(model: nn.Module) -> None:
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=std)

    return prepare


def dead_units(model: nn.Module) -> None:
    """Lower the biases of the first layer until its units are 0 for every grid."""
    first = next(m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d)))
    assert first.bias is not None
    nn.init.constant_(first.bias, -10.0)


WITHOUT_CLASS_3 = np.array([0.2, 1, 1, 0, 1, 1])
BACKGROUND_ALONE = np.array([1.0, 0, 0, 0, 0, 0])
NEXT_TO_NOTHING = np.full(CLASSES, 1e-12)

CASES = (
    Case(
        "beta 10 with sampled z",
        "KL too strong",
        "beta",
        vae(replace(SAMPLED, beta=10)),
        vae(SAMPLED),
    ),
    Case(
        "beta 0.05 against a mean over cells",
        "KL too strong",
        "beta",
        vae(replace(PER_CELL, beta=0.05)),
        vae(PER_CELL),
    ),
    Case(
        "beta ramp up to 100",
        "KL too strong",
        "beta_ramp",
        vae(replace(SAMPLED, beta_ramp=BetaRamp(3, 5, 100), stop_when="never")),
        vae(replace(SAMPLED, stop_when="never")),
    ),
    Case(
        "foreign network with beta 30",
        "KL too strong",
        "beta",
        seeded_build(SampledMlp, shared, replace(OWN_INIT, beta=30)),
        seeded_build(SampledMlp, shared, OWN_INIT),
    ),
    Case("rate 0.5", "learning rate", "lr", vae(replace(GOOD, lr=0.5)), vae(GOOD)),
    Case("rate 1e-7", "learning rate", "lr", vae(replace(GOOD, lr=1e-7)), vae(GOOD)),
    Case("warm-up of 100,000 steps", "learning rate", "warmup", vae(replace(GOOD, warmup=100_000)), vae(GOOD)),
    Case("gradients clipped to 1e-9 under Adam", "learning rate", "clip", vae(replace(ADAM, clip=1e-9)), vae(ADAM)),
    Case(
        "transformer at rate 1 under Adam", "learning rate", "lr", patches(replace(OWN_ADAM, lr=1.0)), patches(OWN_ADAM)
    ),
    Case(
        "every parameter zero", "initialisation", None, vae(OWN_INIT, prepare=normal(0)), vae(GOOD, prepare=normal(0))
    ),
    Case(
        "every parameter normal, std 1e-4",
        "initialisation",
        None,
        vae(replace(ADAM, init=None), prepare=normal(1e-4)),
        vae(ADAM, prepare=normal(1e-4)),
    ),
    Case(
        "foreign network, every parameter normal, std 1",
        "initialisation",
        None,
        mlp(OWN_INIT, prepare=normal(1)),
        mlp(OWN_INIT),
    ),
    Case(
        "foreign network whose first units are dead",
        "initialisation",
        "encoder.0",
        mlp(OWN_INIT, prepare=dead_units),
        mlp(OWN_INIT),
    ),
    Case("weight 0 for class 3", "loss or weights wrong", "weights", vae(GOOD, weights=WITHOUT_CLASS_3), vae(GOOD)),
    Case(
        "weights of an inverted mask, the background alone",
        "loss or weights wrong",
        "weights",
        vae(GOOD, weights=BACKGROUND_ALONE),
        vae(GOOD),
    ),
    Case(
        "weights divided twice by the number of cells",
        "loss or weights wrong",
        "weights",
        vae(ADAM, weights=NEXT_TO_NOTHING),
        vae(ADAM),
    ),
    Case("gamma 60", "loss or weights wrong", "gamma", vae(replace(GOOD, gamma=60)), vae(GOOD)),
    Case("one latent dimension", "too little capacity", "latent_dim", vae(GOOD, latent_dim=1), vae(GOOD)),
    Case("two hidden units", "too little capacity", "encoder", mlp(OWN_INIT, hidden=2), mlp(OWN_INIT)),
    Case("8 steps", "too few steps", "iterations", vae(replace(GOOD, iterations=8)), vae(GOOD)),
    Case("12 steps of Adam", "too few steps", "iterations", vae(replace(ADAM, iterations=12)), vae(ADAM)),
    Case(
        "transformer, 8 steps",
        "too few steps",
        "iterations",
        patches(replace(OWN_INIT, iterations=8)),
        patches(OWN_INIT),
    ),
)
