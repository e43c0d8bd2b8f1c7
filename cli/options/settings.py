"""Make the settings of a run from the options of `overfit` or `train`; an option has the name of the field it sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .parameters import numbers

if TYPE_CHECKING:
    from vaefit.vae.model.user_model import ModelSource
    from vaefit.vae.recipe import Recipe
    from vaefit.vae.settings import CheckSettings
    from vaefit.vae.training.settings import TrainSettings

NOT_SETTINGS = ("as_json", "quiet", "verbose", "resume", "rank_timeout")
"""Parameters of a command that are not settings of the run."""
MAY_CHANGE = ("data", "workers", "checkpoint_every", "cache_dir", "may_scan")
"""Fields that a resumed run may change: they change no number, and the digest shows other data."""
_FIELDS = {"no_scan": "may_scan", "model_arg": "model"}
"""Fields of the parameters that have other names."""


def overfit_settings(ctx: typer.Context, announce: Callable[[str], None]) -> CheckSettings:
    """Return the settings for the parameters of `overfit`; `announce` gets a note if the corpus has to be made."""
    from vaefit.vae.data.synthetic import embedded_corpus
    from vaefit.vae.recipe import RECIPES, BetaRamp
    from vaefit.vae.settings import CheckSettings

    given = dict(ctx.params)
    run = given.pop("from_run")
    ramp = numbers("--beta-ramp", given["beta_ramp"], 3)
    given["beta_ramp"] = None if ramp is None else BetaRamp(*ramp)
    given["indices"] = numbers("--indices", given["indices"], None, whole=True)
    options = _run_options(given, RECIPES)
    if run is not None:
        return _settings_from_run(run, options, _typed_fields(ctx))
    if options["data"] is None:
        CheckSettings(**{**options, "data": ""})  # a wrong option is reported before the corpus is made
        options["data"] = embedded_corpus(announce)
    return CheckSettings(**options)


def train_settings(parameters: Mapping[str, Any]) -> TrainSettings:
    """Return the settings for the parameters of `train`, by their names."""
    from vaefit.vae.training.settings import RECIPES, TrainSettings, from_anywhere

    return from_anywhere(TrainSettings(**_run_options(parameters, RECIPES)))


def resumed_settings(ctx: typer.Context, stored: TrainSettings) -> TrainSettings:
    """Return the settings of a run that `train --resume` continues: the stored ones with the changes that are allowed.

    Raises SettingError for an option that was typed with another value than the run has.
    """
    from vaefit.cache.errors import SettingError

    given = train_settings({**ctx.params, "data": ctx.params["data"] or str(stored.data)})
    typed = _typed_fields(ctx).difference(NOT_SETTINGS)
    for field in sorted(typed.difference(MAY_CHANGE)):
        now, before = _value(given, field), _value(stored, field)
        if now != before:
            if field == "recipe":
                now, before = ctx.params["recipe"], "others"
            what, do = "a run goes on with the settings that it began with", "Leave it out, or start a new run."
            raise SettingError(what, f"--{field.replace('_', '-')}", f"{now}, begun with {before}", do)
    return replace(stored, **{field: getattr(given, field) for field in typed.intersection(MAY_CHANGE)})


def _value(settings: TrainSettings, field: str) -> object:
    return getattr(settings, field) if hasattr(settings, field) else getattr(settings.recipe, field)


def _typed_fields(ctx: typer.Context) -> set[str]:
    """Return the fields whose options were typed; the others have their defaults."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    return {_FIELDS.get(name, name) for name, source in sources.items() if getattr(source, "name", "") == "COMMANDLINE"}


def _settings_from_run(run: Path, options: Mapping[str, Any], typed: set[str]) -> CheckSettings:
    """Return the settings of an earlier run as those of a check, changed by the options that were typed."""
    from vaefit.vae.recipe import Recipe
    from vaefit.vae.run_folder.reader import StoredRun
    from vaefit.vae.runs.overfit_from_run import recipe_from_run

    if "recipe" in typed:
        raise typer.BadParameter("--from and --recipe both say where every setting starts from; pass one of them")
    knobs = {f.name: getattr(options["recipe"], f.name) for f in fields(Recipe) if f.name in typed}
    return recipe_from_run(StoredRun.read(run), knobs, {name: options[name] for name in typed & options.keys()})


def _run_options(parameters: Mapping[str, Any], recipes: Mapping[str, Recipe]) -> dict[str, Any]:
    """Return the fields of a run's settings for the parsed parameters of `overfit` or `train`."""
    from vaefit.vae.model.user_model import DEFAULT_LATENT
    from vaefit.vae.recipe import Recipe, for_foreign, recipe_with

    given = {name: value for name, value in parameters.items() if name not in NOT_SETTINGS}
    if given["weights_file"] is not None and given["weights"] is not None:
        raise typer.BadParameter("--weights and --weights-file both say where the weights come from; pass one of them")
    given["betas"] = numbers("--betas", given["betas"], 2)
    given["may_scan"] = not given.pop("no_scan")
    given["model"] = _model_source(given.pop("model"), tuple(given.pop("model_arg") or ()))
    given["lr"] = _learning_rate(given["lr"])
    if given["model"] is None and given["latent_dim"] is None:
        given["latent_dim"] = DEFAULT_LATENT
    knobs = {field.name: given.pop(field.name) for field in fields(Recipe) if field.name in given}
    recipe = recipe_with(given.pop("recipe"), recipes, **knobs)
    return {**given, "recipe": recipe if given["model"] is None else for_foreign(recipe, **knobs)}


def _model_source(name: str | None, arguments: tuple[str, ...]) -> ModelSource | None:
    """Return the model that `--model` and `--model-arg` name; None for the built-in network."""
    from vaefit.vae.model.user_model import ModelSource

    if name is not None:
        return ModelSource.parse(name, arguments)
    if arguments:
        raise typer.BadParameter("it is for a model of your own; pass --model too", param_hint="--model-arg")
    return None


def _learning_rate(text: str | None) -> float | str | None:
    """Return the learning rate that was typed, a number or `auto`."""
    if text is None or text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number, nor auto", param_hint="--lr") from None
