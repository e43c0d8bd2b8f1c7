"""The settings of a run as those of a check: can what was trained memorise one batch?"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..recipe import Recipe, for_foreign
from ..run_folder.reader import StoredRun
from ..settings import CheckSettings
from ..training.settings import TrainSettings

WARMUP_SHARE = 20
"""One update in so many of a check warms up at most, where the warm-up was meant for a longer run."""
_SHARED = ("data", "model", "latent_dim", "classes", "ignore_index", "weights_file", "cache_dir")
"""Fields of training that a check takes over."""
_OWN = ("device", "backend", "threads", "out", "overwrite", "diagnose", "graph", "tensorboard")
"""Fields of a check that say where and how it runs; a check takes none of them from another one."""
_WEIGHTS = {"weights", "scheme", "smooth", "effective_b", "weights_power"}

_log = logging.getLogger("vaefit")


def recipe_from_run(run: StoredRun, knobs: Mapping[str, Any], others: Mapping[str, Any]) -> CheckSettings:
    """The settings of a check that start from those of a run; a note says what was taken from where.

    From training it takes recipe, model, data and what the weights are derived from; beta is that at the end of its
    schedule, a rate that a range test found is taken as the number, the warm-up is cut to a twentieth of the updates,
    and batch, updates and the end are those of the check's own default. From a check it takes all that changes a
    number.

    Args:
        knobs: fields of the recipe that were asked for otherwise, and win.
        others: the same of the settings.

    Raises SettingError for a value that is wrong by itself.
    """
    given = {**knobs, **others}
    told = run.settings
    if isinstance(told, TrainSettings):
        base = {name: getattr(told, name) for name in _SHARED}
        recipe = _of_training(run, told.recipe, knobs)
        taken = _of_training_words(run, told, recipe, given)
    else:
        default = CheckSettings("")
        base = {f: getattr(told, f) for f in told.__dataclass_fields__ if f not in (*_OWN, "recipe")}
        base.update({name: getattr(default, name) for name in _OWN})
        recipe, taken = told.recipe, "all that changes a number is taken from it"
    if {"batch_size", "batch_seed"} & others.keys():
        base["indices"] = None  # beside which the two would do nothing
    if _WEIGHTS & knobs.keys():
        base["weights_file"] = None
    if "model" in others:
        base["latent_dim"] = None
    changed = replace(_without_rivals(recipe, knobs), **knobs)
    if others.get("model") is not None:
        changed = for_foreign(changed, **knobs)
    settings = CheckSettings(**{**base, **others, "recipe": changed})
    asked = sorted(given.keys() - set(_OWN))
    options = ", ".join(f"--{name.replace('_', '-')}" for name in asked)
    kind = "a training run" if isinstance(told, TrainSettings) else "a check"
    _log.warning(f"--from {run.folder.absolute()}, {kind}: {taken}" + (f"; given here: {options}" if options else ""))
    return settings


def _of_training(run: StoredRun, recipe: Recipe, knobs: Mapping[str, Any]) -> Recipe:
    """The recipe of training, for so few updates on one batch."""
    default = Recipe()
    iterations = knobs.get("iterations", default.iterations)
    result = run.result
    found = result.setup.lr if result is not None and recipe.lr == "auto" else None
    return replace(
        recipe,
        lr=recipe.lr if found is None else found,
        beta=run.recipe.largest_beta,
        beta_ramp=None,
        warmup=min(recipe.warmup, iterations // WARMUP_SHARE),
        iterations=iterations,
        stop_when=default.stop_when,
        target=default.target,
        resample=default.resample,
    )


def _of_training_words(run: StoredRun, told: TrainSettings, recipe: Recipe, given: Mapping[str, Any]) -> str:
    """What is taken from training and what is not, but for what is given otherwise."""
    if told.weights_file is not None:
        weights = f"weights of {told.weights_file}"
    else:
        weights = "no class weights" if recipe.weights == "none" else f"weights by {recipe.scheme}"
        if recipe.weights_power != 1:
            weights += f"^{recipe.weights_power:g}"
    taken = {
        "data": f"data {told.data}",
        "model": "model" if told.model is None else str(told.model),
        "gamma": f"gamma {recipe.gamma:g}",
        "reduction": f"reduction {recipe.reduction}",
        "weights": weights,
        "optimiser": f"{recipe.optimiser}",
        "lr": f"rate {recipe.lr}",
        "lr_decay": f"decay {recipe.lr_decay}",
        "z": f"z {recipe.z}",
        "beta": f"beta {recipe.beta:g}",
        "init": f"init {recipe.init}",
    }
    own = {"iterations": f"{recipe.iterations} updates", "stop_when": "stopping when exact", "batch_size": "batch 32"}
    if recipe.warmup != told.recipe.warmup:
        own["warmup"] = f"warm-up {recipe.warmup} instead of {told.recipe.warmup}"
    left = {f"--augment {told.augment}": told.augment != "none", "--precision bfloat16": told.precision == "bfloat16"}
    without = [option for option, there in left.items() if there]
    words = f"{_listed(taken, given)} are taken from it; {_listed(own, given)} are the check's own"
    return words + (f"; {' and '.join(without)} is left out" if without else "")


def _listed(words: Mapping[str, str], given: Mapping[str, Any]) -> str:
    return ", ".join(text for name, text in words.items() if name not in given)


def _without_rivals(recipe: Recipe, knobs: Mapping[str, Any]) -> Recipe:
    """The recipe without what would take the place of a knob that was asked for."""
    if "beta" in knobs and "beta_ramp" not in knobs:
        recipe = replace(recipe, beta_ramp=None)
    if "scheme" in knobs and "weights" not in knobs and recipe.weights == "none":
        recipe = replace(recipe, weights="global")
    if "scheme" in knobs:
        recipe = replace(recipe, effective_b=None)
    return recipe
