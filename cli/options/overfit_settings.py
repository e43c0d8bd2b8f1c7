"""From the options of a command that fits a model, as they were typed, to its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from .common import numbers

if TYPE_CHECKING:
    from vaefit.vae.model.user_model import ModelSource
    from vaefit.vae.recipe import Recipe
    from vaefit.vae.settings import CheckSettings, RunSettings

Settings = TypeVar("Settings", bound="RunSettings")
ONLY_PRINTING = ("as_json", "quiet")
"""Parameters of a command that the run does not know."""


def check_settings(ctx: typer.Context, announce: Callable[[str], None]) -> CheckSettings:
    """The settings that the parameters of `overfit` mean; an option has the name of the field that it sets.

    Args:
        ctx: parameter name to value, as typer parsed them, and which of them were typed.
        announce: told where the embedded corpus has to be made first.
    """
    from vaefit.vae.recipe import RECIPES, BetaRamp
    from vaefit.vae.settings import CheckSettings

    given = {name: value for name, value in ctx.params.items() if name not in ONLY_PRINTING}
    run = given.pop("from_run")
    ramp = numbers("--beta-ramp", given["beta_ramp"], 3)
    indices = numbers("--indices", given["indices"], None, whole=True)
    given["beta_ramp"] = None if ramp is None else BetaRamp(*ramp)
    given["indices"] = None if indices is None else tuple(map(int, indices))
    options = run_options(given, RECIPES)
    return with_data(CheckSettings, options, announce) if run is None else _from_run(run, options, typed(ctx))


def typed(ctx: typer.Context) -> set[str]:
    """The names of the parameters that were typed; the others have their defaults."""
    return {name for name in ctx.params if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"}


def _from_run(run: Path, options: Mapping[str, Any], names: set[str]) -> CheckSettings:
    """The settings of a run as those of a check, but for the options that were typed."""
    from vaefit.vae.recipe import Recipe
    from vaefit.vae.runs.overfit_from_run import recipe_from_run
    from vaefit.vae.runs.past_run import PastRun

    if "recipe" in names:
        raise typer.BadParameter("--from and --recipe both say where every setting starts from; pass one of them")
    names = {{"no_scan": "may_scan", "optimiser": "optimizer"}.get(name, name) for name in names}
    knobs = {f.name: getattr(options["recipe"], f.name) for f in fields(Recipe) if f.name in names}
    return recipe_from_run(PastRun.read(run), knobs, {name: options[name] for name in names & options.keys()})


def run_options(given: dict[str, Any], recipes: Mapping[str, Recipe]) -> dict[str, Any]:
    """The fields of a run's settings, of those parameters that every command that fits a model has.

    Args:
        given: parameter name to value; those that are not known here stay as they are.
        recipes: those that `--recipe` may name.
    """
    from vaefit.vae.model.user_model import DEFAULT_LATENT
    from vaefit.vae.recipe import Recipe, for_foreign, recipe_with

    given = dict(given)
    if given["weights_file"] is not None and given["weights"] is not None:
        raise typer.BadParameter("--weights and --weights-file both say where the weights come from; pass one of them")
    given["optimizer"] = given.pop("optimiser")
    given["betas"] = numbers("--betas", given["betas"], 2)
    given["may_scan"] = not given.pop("no_scan")
    given["model"] = model_source(given.pop("model"), tuple(given.pop("model_arg") or ()))
    given["lr"] = rate(given["lr"])
    if given["model"] is None and given["latent_dim"] is None:
        given["latent_dim"] = DEFAULT_LATENT
    knobs = {field.name: given.pop(field.name) for field in fields(Recipe) if field.name in given}
    recipe = recipe_with(given.pop("recipe"), recipes, **knobs)
    return {**given, "recipe": recipe if given["model"] is None else for_foreign(recipe, **knobs)}


def with_data(kind: type[Settings], given: dict[str, Any], announce: Callable[[str], None]) -> Settings:
    """The settings; without data, those of the embedded corpus, made only once nothing is wrong with the others."""
    from vaefit.vae.data.default_corpus import embedded_corpus

    if given["data"] is None:
        kind(**{**given, "data": ""})
        given = {**given, "data": embedded_corpus(announce)}
    return kind(**given)


def model_source(name: str | None, arguments: tuple[str, ...]) -> ModelSource | None:
    """The model that `--model` and `--model-arg` name; None for our own."""
    from vaefit.vae.model.user_model import ModelSource

    if name is not None:
        return ModelSource.parse(name, arguments)
    if arguments:
        raise typer.BadParameter("it is for a model of your own; pass --model too", param_hint="--model-arg")
    return None


def rate(text: str | None) -> float | str | None:
    """The learning rate that was typed, a number or `auto`."""
    if text is None or text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number, nor auto", param_hint="--lr") from None
