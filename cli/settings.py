"""From the options of `overfit`, as they were typed, to the settings of a check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import typer

from .options import numbers

if TYPE_CHECKING:
    from vaefit.vae.model_source import ModelSource
    from vaefit.vae.settings import CheckSettings

ONLY_PRINTING = ("as_json", "quiet")
"""Parameters of the command that the check does not know."""


def check_settings(options: Mapping[str, Any], announce: Callable[[str], None]) -> CheckSettings:
    """The settings that the parameters of `overfit` mean; an option has the name of the field that it sets.

    Args:
        options: parameter name to value, as typer parsed them.
        announce: told where the embedded corpus has to be made first.
    """
    from vaefit.vae.beta import BetaRamp
    from vaefit.vae.grids.corpus import embedded_corpus
    from vaefit.vae.model_source import DEFAULT_LATENT
    from vaefit.vae.recipe import Recipe, for_foreign, recipe_with
    from vaefit.vae.settings import CheckSettings

    given = {name: value for name, value in options.items() if name not in ONLY_PRINTING}
    if given["weights_file"] is not None and given["weights"] is not None:
        raise typer.BadParameter("--weights and --weights-file both say where the weights come from; pass one of them")
    ramp = numbers("--beta-ramp", given["beta_ramp"], 3)
    indices = numbers("--indices", given["indices"], None, whole=True)
    given["beta_ramp"] = None if ramp is None else BetaRamp(*ramp)
    given["betas"] = numbers("--betas", given["betas"], 2)
    given["indices"] = None if indices is None else tuple(map(int, indices))
    given["may_scan"] = not given.pop("no_scan")
    given["model"] = model_source(given.pop("model"), tuple(given.pop("model_arg") or ()))
    given["lr"] = rate(given["lr"])
    if given["model"] is None and given["latent_dim"] is None:
        given["latent_dim"] = DEFAULT_LATENT
    knobs = {field.name: given.pop(field.name) for field in fields(Recipe)}
    recipe = recipe_with(given.pop("recipe"), **knobs)
    if given["model"] is not None:
        recipe = for_foreign(recipe, **knobs)
    if given["data"] is None:
        # made last: a wrong option must not cost a corpus
        CheckSettings(**{**given, "data": "", "recipe": recipe})
        given["data"] = embedded_corpus(announce)
    return CheckSettings(**given, recipe=recipe)


def model_source(name: str | None, arguments: tuple[str, ...]) -> ModelSource | None:
    """The model that `--model` and `--model-arg` name; None for our own."""
    from vaefit.vae.model_source import ModelSource

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
