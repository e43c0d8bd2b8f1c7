"""Settings of an overfit check that start from those of a past run (`overfit --from RUN`)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..recipe import Recipe, for_foreign, recipe_from_options
from ..run_folder.reader import StoredRun
from ..settings import CheckSettings
from ..training.settings import TrainSettings

WARMUP_SHARE = 20
"""The warm-up takes at most one in this many updates of the check: it was meant for a longer run."""
_SHARED = ("data", "model", "latent_dim", "classes", "ignore_index", "weights_file", "cache_dir")
"""Fields that a check takes from a training run."""
_OWN = ("device", "backend", "threads", "out", "overwrite", "diagnose", "graph", "tensorboard")
"""Fields of a check that say where and how it runs; they are not taken from a past check."""
_WEIGHTS = {"weights", "scheme", "smooth", "effective_b", "weights_power"}

_log = logging.getLogger("vaefit")


def recipe_from_run(run: StoredRun, knobs: Mapping[str, Any], others: Mapping[str, Any]) -> CheckSettings:
    """Return the settings of a check that start from those of a run; a note lists the settings that are taken.

    A training run gives recipe, model, data and the source of the weights. beta is that at the end of its schedule, the
    rate is the number that a range test found, the warm-up is cut to a twentieth of the updates, and batch, updates and
    stopping rule are the check's defaults. A past check gives every setting that changes a number.

    Args:
        knobs: fields of the recipe that the user requested; they replace those of the run.
        others: the same for fields of the settings.

    Raises SettingError for a value that is wrong by itself.
    """
    given = {**knobs, **others}
    past = run.settings
    if isinstance(past, TrainSettings):
        base = {name: getattr(past, name) for name in _SHARED}
        recipe = _recipe_from_training(run, past.recipe, knobs)
        taken = _training_note(past, recipe, given)
    else:
        default = CheckSettings("")
        base = {f: getattr(past, f) for f in past.__dataclass_fields__ if f not in (*_OWN, "recipe")}
        base.update({name: getattr(default, name) for name in _OWN})
        recipe, taken = past.recipe, "every setting that changes a number is taken from it"
    if {"batch_size", "batch_seed"} & others.keys():
        base["indices"] = None  # they would override the two
    if _WEIGHTS & knobs.keys():
        base["weights_file"] = None
    if "model" in others:
        base["latent_dim"] = None
    changed = recipe_from_options(_without_conflicts(recipe, knobs), knobs)
    if others.get("model") is not None:
        changed = for_foreign(changed, **knobs)
    settings = CheckSettings(**{**base, **others, "recipe": changed})
    options = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(given.keys() - set(_OWN)))
    kind = "a training run" if isinstance(past, TrainSettings) else "a check"
    _log.warning(f"--from {run.folder.absolute()}, {kind}: {taken}" + (f"; given here: {options}" if options else ""))
    return settings


def _recipe_from_training(run: StoredRun, recipe: Recipe, knobs: Mapping[str, Any]) -> Recipe:
    """Return the recipe of training, adapted to the few updates of a check on one batch."""
    default = Recipe()
    iterations = knobs.get("iterations", default.iterations)
    result = run.result
    changes = {
        "lr": result.setup.lr if result is not None and recipe.lr == "auto" else recipe.lr,
        "beta": run.recipe.largest_beta,
        "beta_ramp": None,
        "warmup": min(recipe.warmup, iterations // WARMUP_SHARE),
        "iterations": iterations,
        "stop_when": default.stop_when,
        "target": default.target,
        "resample": default.resample,
    }
    return recipe_from_options(recipe, changes)


def _training_note(past: TrainSettings, recipe: Recipe, given: Mapping[str, Any]) -> str:
    if past.weights_file is not None:
        weights = f"weights of {past.weights_file}"
    else:
        weights = "no class weights" if recipe.weights == "none" else f"weights by {recipe.scheme}"
        if recipe.weights_power != 1:
            weights += f"^{recipe.weights_power:g}"
    taken = {
        "data": f"data {past.data}",
        "model": "model" if past.model is None else str(past.model),
        "gamma": f"gamma {recipe.gamma:g}",
        "reduction": f"reduction {recipe.reduction}",
        "weights": weights,
        "optimizer": recipe.optimizer,
        "lr": f"rate {recipe.lr}",
        "lr_decay": f"decay {recipe.lr_decay}",
        "z": f"z {recipe.z}",
        "beta": f"beta {recipe.beta:g}",
        "init": f"init {recipe.init}",
    }
    own = {"iterations": f"{recipe.iterations} updates", "stop_when": "stopping when exact", "batch_size": "batch 32"}
    if recipe.warmup != past.recipe.warmup:
        own["warmup"] = f"warm-up {recipe.warmup} instead of {past.recipe.warmup}"
    options = (f"--augment {past.augment}", f"--precision {past.precision}")
    without = [option for option in options if option not in ("--augment none", "--precision float32")]
    words = f"{_listed(taken, given)} are taken from it; {_listed(own, given)} are the check's own"
    return words + (f"; {' and '.join(without)} is left out" if without else "")


def _listed(words: Mapping[str, str], given: Mapping[str, Any]) -> str:
    return ", ".join(text for name, text in words.items() if name not in given)


def _without_conflicts(recipe: Recipe, knobs: Mapping[str, Any]) -> Recipe:
    """Return the recipe without settings that would override a requested one."""
    if "beta" in knobs and "beta_ramp" not in knobs:
        recipe = replace(recipe, beta_ramp=None)
    if "scheme" in knobs and "weights" not in knobs and recipe.weights == "none":
        recipe = replace(recipe, weights="global")
    if "scheme" in knobs:
        recipe = replace(recipe, effective_b=None)
    return recipe
