"""The changes that a failed run is run again with, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.batch import Batch
from ..data.class_weights import ClassWeights
from ..metrics.advice import LARGE_GAMMA, largest_beta
from ..metrics.diagnosis import Cause
from ..model.beta_vae import BetaVAE
from ..model.user_model import DEFAULT_LATENT
from ..recipe import DEFAULT_LR, RECIPES, Recipe
from .failed_run import FailedRun

FACTOR = 8.0
"""Between a rate and the lower and the higher one that are tried beside it."""
FAR = 4.0
"""A rate this many times off the recipe's is taken there, not a factor further; weights as far off are others."""
FEW_UPDATES = 60
"""Healthy runs of the default recipe need 20 to 60; one that was shorter may just be short."""
WITHOUT_DRAWING: dict[bool, tuple[str, Cause]] = {
    True: ("Feed the decoder mu while fitting, or less noise.", "latent ignored"),
    False: ("Turn off for this check what draws in training, as dropout does.", "too little capacity"),
}
"""For a model with a latent, and for one without: what nobody can turn off from outside."""
SCHEDULE = ("warmup", "clip", "betas", "lr_decay", "decay_steps")


@dataclass(frozen=True)
class Change:
    """One thing that is different in a rerun; several of them together make a rerun too."""

    name: str
    option: str
    """As it is pasted behind the command."""
    cause: Cause
    """What failed, if this alone mends it."""
    knobs: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the recipe, and their values."""
    weights: ClassWeights | None = None
    batch: Batch | None = None
    latent_dim: int | None = None
    """Of a BetaVAE that takes the model's place."""
    as_evaluated: bool = False
    """Fit the model in the mode of evaluation, in which it draws nothing."""


def deviations(patient: FailedRun) -> Iterator[Change]:
    """Each setting that is not the default recipe's, put back. What was measured to matter most comes first."""
    recipe = patient.recipe
    if largest_beta(recipe) > 0:
        option = "--beta 0" if recipe.beta_ramp is None else "--beta-ramp 0,0,0"
        yield Change("beta 0", option, "KL too strong", {"beta": 0.0, "beta_ramp": None})
    if recipe.z == "sample":
        yield Change("z = mu", "--z mu", "latent ignored", {"z": "mu"})
    derived = derived_weights(patient)
    if _differ(patient, derived):
        option = "--weights global" + (" (without --weights-file)" if patient.weights.source == "file" else "")
        yield Change("weights from the counts", option, "loss or weights wrong", weights=derived)
    if recipe.gamma > LARGE_GAMMA:
        gamma = Recipe.gamma
        yield Change(f"gamma {gamma:g}", f"--gamma {gamma:g}", "loss or weights wrong", {"gamma": gamma})
    if _is_far(recipe) and not _tested(patient):
        yield _rate(recipe, DEFAULT_LR)
    schedule = _schedule(recipe)
    if schedule is not None:
        default = RECIPES["default"] if recipe.optimizer == "muon" else RECIPES["adam"]
        knobs = {name: getattr(default, name) for name in SCHEDULE}
        yield Change("the recipe's schedule", schedule, "learning rate", knobs)
    if recipe.init not in ("rescaled", None) or (recipe.init is None and patient.adapter.ours):
        yield _rescaled(patient)
    if recipe.resample:
        yield Change("the same grids every step", "--no-resample", "data problem", {"resample": False})


def longer(patient: FailedRun) -> Change | None:
    """More steps, for a run that may just have been short; None for others."""
    if patient.recipe.iterations >= FEW_UPDATES:
        return None
    option = f"--iterations {Recipe.iterations}"
    return Change("more steps", option, "too few steps", {"iterations": Recipe.iterations})


def variations(patient: FailedRun, samples: bool) -> Iterator[Change]:
    """Other settings than the default recipe's, for a run that fails under it as well.

    `samples`: the model draws something in training.
    """
    recipe = patient.recipe
    if samples and not patient.adapter.ours:
        option, cause = WITHOUT_DRAWING[patient.adapter.gives.latent]
        yield Change("nothing drawn in training", option, cause, _tested_anew(patient), as_evaluated=True)
    if isinstance(patient.model, BetaVAE) and patient.model.latent_dim < DEFAULT_LATENT:
        option = f"--latent-dim {DEFAULT_LATENT}"
        yield Change(f"latent {DEFAULT_LATENT}", option, "too little capacity", latent_dim=DEFAULT_LATENT)
    tried = _is_far(recipe) and not _tested(patient)
    if not tried or recipe.rate < DEFAULT_LR:
        yield _rate(recipe, recipe.rate / FACTOR)
    if not tried or recipe.rate > DEFAULT_LR:
        yield _rate(recipe, recipe.rate * FACTOR)
    if recipe.init is None and not patient.adapter.ours:
        yield _rescaled(patient)
    if patient.weights.source != "none":
        ones = ClassWeights(np.ones(patient.weights.values.size), "none", "none")
        yield Change("unit weights", "--weights none", "loss or weights wrong", {"weights": "none"}, weights=ones)
    if recipe.gamma > 0:
        yield Change("gamma 0", "--gamma 0", "loss or weights wrong", {"gamma": 0.0})


def one_grid(patient: FailedRun) -> Change | None:
    """The run on the first grid alone; None where it was alone already."""
    batch = patient.batch
    if len(batch.grids) == 1:
        return None
    targets = None if batch.other_targets is None else batch.other_targets[:1]
    first = Batch(batch.grids[:1], batch.indices[:1], other_targets=targets)
    option = f"--indices {batch.indices[0]}" if batch.indices else "--batch-size 1"
    return Change("one grid", option, "too little capacity", batch=first)


def faster(patient: FailedRun) -> Change:
    """The higher rate."""
    return _rate(patient.recipe, patient.recipe.rate * FACTOR)


def whole_recipe(patient: FailedRun) -> Change:
    """Every setting as the default recipe has it, but for a foreign model's own initialisation."""
    kept: tuple[str, ...] = ("iterations", "target", "stop_when")
    if not patient.adapter.ours and patient.recipe.init is None:
        kept = (*kept, "init")
    if _tested(patient):
        kept = (*kept, "lr")
    knobs = {name: value for name, value in vars(RECIPES["default"]).items() if name not in kept}
    option = "--recipe default --weights global"
    return Change("the default recipe", option, "learning rate", knobs, derived_weights(patient))


def derived_weights(patient: FailedRun) -> ClassWeights:
    """Weights by the default scheme from the batch, which behave as those of the whole dataset do."""
    counts = patient.batch.counts(patient.adapter.classes, patient.ignore_index)
    return ClassWeights.from_counts(Recipe(), counts, "batch")


def _differ(patient: FailedRun, derived: ClassWeights) -> bool:
    """The weights are far from those of the batch, as those of the whole dataset never are."""
    if patient.weights.source in ("global", "batch") and patient.weights.scheme == Recipe.scheme:
        return False
    held = patient.batch.counts(patient.adapter.classes, patient.ignore_index) > 0
    ratios = patient.weights.values[held] / derived.values[held]
    return bool((ratios < 1 / FAR).any() or (ratios > FAR).any())


def _is_far(recipe: Recipe) -> bool:
    return not DEFAULT_LR / FAR <= recipe.rate <= DEFAULT_LR * FAR


def _rate(recipe: Recipe, rate: float) -> Change:
    name = "lower rate" if rate < recipe.rate else "higher rate"
    return Change(name, f"--lr {rate:.3g}", "learning rate", {"lr": rate})


def _rescaled(patient: FailedRun) -> Change:
    knobs = {"init": "rescaled", **_tested_anew(patient)}
    return Change("rescaled initialisation", "--init rescaled", "initialisation", knobs)


def _tested(patient: FailedRun) -> bool:
    """A range test chose the rate, which is then no deviation, however far it is from our own network's."""
    return patient.result.start.range_test is not None


def _tested_anew(patient: FailedRun) -> dict[str, Any]:
    """The rate of a range test was chosen for the model as it was: what changes that chooses again."""
    return {"lr": "auto"} if _tested(patient) else {}


def _schedule(recipe: Recipe) -> str | None:
    """The options that put warm-up, clip, betas and decay back, where any of them is far from the recipe's."""
    default = RECIPES["default"] if recipe.optimizer == "muon" else RECIPES["adam"]
    options = []
    if recipe.warmup > max(4 * default.warmup, recipe.iterations // 4):
        options.append(f"--warmup {default.warmup}")
    if recipe.clip != 0 and recipe.clip < default.clip / 100:
        options.append(f"--clip {default.clip:g}")
    if max(recipe.betas) > 0.9995:
        options.append(f"--betas {default.betas[0]:g},{default.betas[1]:g}")
    if recipe.lr_decay == "isqrt" and recipe.decay_steps < default.decay_steps / 10:
        options.append(f"--decay-steps {default.decay_steps}")
    return " ".join(options) or None
