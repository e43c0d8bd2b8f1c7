"""Changes of settings for the reruns of a failed run, in the order of the reruns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from ..data.batch import Batch
from ..data.class_weights import ClassWeights
from ..metrics.advice import LARGE_GAMMA
from ..metrics.diagnosis import Cause
from ..model.beta_vae import BetaVAE
from ..model.user_model import DEFAULT_LATENT
from ..recipe import DEFAULT_LR, RECIPES, Recipe
from .failed_run import FailedRun

FACTOR = 8.0
"""Ratio between neighbours among the lower rate, the rate and the higher rate of the reruns."""
FAR = 4.0
"""A rate this many times off the recipe's is replaced by it; weights this many times off count as different."""
FEW_UPDATES = 60
"""Passing runs of the default recipe need 20 to 60 updates. A shorter run may only be too short."""
RANDOM_MODEL: dict[bool, tuple[str, Cause]] = {
    True: ("Feed the decoder mu while fitting, or less noise.", "latent ignored"),
    False: ("Turn off random layers, such as dropout, for this check.", "too little capacity"),
}
"""Advice and cause for a model that draws random numbers in training: with a latent, and without."""
BATCH_STATISTICS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
"""Layers that have no statistics of one grid, or others than those of a batch."""
SCHEDULE = ("warmup", "clip", "betas", "lr_decay", "decay_steps")


@dataclass(frozen=True)
class Change:
    """Difference of a rerun from the failed run; a rerun can have several."""

    name: str
    option: str
    """Options to append to the command."""
    cause: Cause
    """Cause of the failure, if this change alone fixes it."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the recipe and their new values."""
    weights: ClassWeights | None = None
    batch: Batch | None = None
    latent_dim: int | None = None
    """Latent size of a BetaVAE that replaces the model."""
    as_evaluated: bool = False
    """Fit the model in evaluation mode, in which it draws no random numbers."""


def deviations(failed: FailedRun) -> Iterator[Change]:
    """Yield the default for each setting that differs from the default recipe, the largest measured effect first."""
    recipe = failed.recipe
    if recipe.largest_beta > 0:
        option = "--beta 0" if recipe.beta_ramp is None else "--beta-ramp 0,0,0"
        yield Change("beta 0", option, "KL too strong", {"beta": 0.0, "beta_ramp": None})
    if recipe.z == "sample":
        yield Change("z = mu", "--z mu", "latent ignored", {"z": "mu"})
    derived = derived_weights(failed)
    if _weights_differ(failed, derived):
        option = "--weights global" + (" (without --weights-file)" if failed.weights.source == "file" else "")
        yield Change("weights from the counts", option, "loss or weights wrong", weights=derived)
    if recipe.gamma > LARGE_GAMMA:
        gamma = Recipe.gamma
        yield Change(f"gamma {gamma:g}", f"--gamma {gamma:g}", "loss or weights wrong", {"gamma": gamma})
    if _is_far(recipe) and not _tested(failed):
        yield _rate(recipe, DEFAULT_LR)
    if (schedule := _schedule(recipe)) is not None:
        yield schedule
    if recipe.init not in ("rescaled", None) or (recipe.init is None and failed.adapter.ours):
        yield _rescaled(failed)
    if recipe.resample:
        yield Change("the same grids every step", "--no-resample", "data problem", {"resample": False})


def longer(failed: FailedRun) -> Change | None:
    """Return a change to more steps for a short run; None for other runs."""
    if failed.recipe.iterations >= FEW_UPDATES:
        return None
    option = f"--iterations {Recipe.iterations}"
    return Change("more steps", option, "too few steps", {"iterations": Recipe.iterations})


def variations(failed: FailedRun, samples: bool) -> Iterator[Change]:
    """Yield settings beside the default recipe's, for a run that also fails with the default recipe.

    `samples`: the model draws random numbers in training.
    """
    recipe = failed.recipe
    if samples and not failed.adapter.ours:
        option, cause = RANDOM_MODEL[failed.adapter.gives.latent is not None]
        yield Change("nothing drawn in training", option, cause, _retested(failed), as_evaluated=True)
    if isinstance(failed.model, BetaVAE) and failed.model.latent_dim < DEFAULT_LATENT:
        option = f"--latent-dim {DEFAULT_LATENT}"
        yield Change(f"latent {DEFAULT_LATENT}", option, "too little capacity", latent_dim=DEFAULT_LATENT)
    tried = _is_far(recipe) and not _tested(failed)
    if not tried or recipe.rate < DEFAULT_LR:
        yield _rate(recipe, recipe.rate / FACTOR)
    if not tried or recipe.rate > DEFAULT_LR:
        yield _rate(recipe, recipe.rate * FACTOR)
    if recipe.init is None and not failed.adapter.ours:
        yield _rescaled(failed)
    if failed.weights.source != "none":
        ones = ClassWeights(np.ones(failed.weights.values.size), "none", "none")
        yield Change("unit weights", "--weights none", "loss or weights wrong", {"weights": "none"}, weights=ones)
    if recipe.gamma > 0:
        yield Change("gamma 0", "--gamma 0", "loss or weights wrong", {"gamma": 0.0})


def one_grid(failed: FailedRun) -> Change | None:
    """Return a change to the first grid alone; None if the batch has one grid, or the model needs two in training."""
    batch = failed.batch
    if len(batch.grids) == 1 or any(isinstance(m, BATCH_STATISTICS) for m in failed.model.modules()):
        return None
    targets = None if batch.other_targets is None else batch.other_targets[:1]
    first = Batch(batch.grids[:1], batch.indices[:1], other_targets=targets)
    option = f"--indices {batch.indices[0]}" if batch.indices else "--batch-size 1"
    return Change("one grid", option, "too little capacity", batch=first)


def faster(failed: FailedRun) -> Change:
    """Return a change to the higher rate."""
    return _rate(failed.recipe, failed.recipe.rate * FACTOR)


def whole_recipe(failed: FailedRun) -> Change:
    """Return a change to the default recipe as a whole; a user's model keeps its own initialisation."""
    unchanged: tuple[str, ...] = ("iterations", "target", "stop_when")
    if not failed.adapter.ours and failed.recipe.init is None:
        unchanged = (*unchanged, "init")
    if _tested(failed):
        unchanged = (*unchanged, "lr")
    settings = {name: value for name, value in vars(RECIPES["default"]).items() if name not in unchanged}
    option = "--recipe default --weights global"
    return Change("the default recipe", option, "learning rate", settings, derived_weights(failed))


def derived_weights(failed: FailedRun) -> ClassWeights:
    """Return weights by the default scheme from the batch, which act like those of the whole dataset."""
    counts = failed.batch.counts(failed.adapter.classes, failed.ignore_index)
    return ClassWeights.from_counts(Recipe(), counts, "batch")


def _weights_differ(failed: FailedRun, derived: ClassWeights) -> bool:
    """Return True if the weights differ from those of the batch by more than `FAR` times in a class."""
    if failed.weights.source in ("global", "batch") and failed.weights.scheme == Recipe.scheme:
        return False
    held = failed.batch.counts(failed.adapter.classes, failed.ignore_index) > 0
    ratios = failed.weights.values[held] / derived.values[held]
    return bool((ratios < 1 / FAR).any() or (ratios > FAR).any())


def _is_far(recipe: Recipe) -> bool:
    return not DEFAULT_LR / FAR <= recipe.rate <= DEFAULT_LR * FAR


def _rate(recipe: Recipe, rate: float) -> Change:
    name = "lower rate" if rate < recipe.rate else "higher rate"
    return Change(name, f"--lr {rate:.3g}", "learning rate", {"lr": rate})


def _rescaled(failed: FailedRun) -> Change:
    settings = {"init": "rescaled", **_retested(failed)}
    return Change("rescaled initialisation", "--init rescaled", "initialisation", settings)


def _tested(failed: FailedRun) -> bool:
    """Return True if a range test chose the rate, which then is no deviation from the recipe."""
    return failed.result.start.range_test is not None


def _retested(failed: FailedRun) -> dict[str, Any]:
    """Return the setting for a new range test, because the first one measured the unchanged model."""
    return {"lr": "auto"} if _tested(failed) else {}


def _schedule(recipe: Recipe) -> Change | None:
    """Return a change to the default warm-up, clip, betas and decay; None if none is far from the recipe's."""
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
    settings = {name: getattr(default, name) for name in SCHEDULE}
    return Change("the recipe's schedule", " ".join(options), "learning rate", settings) if options else None
