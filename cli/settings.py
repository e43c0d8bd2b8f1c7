"""From the options of `overfit`, as they were typed, to the settings of a check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import typer

from .options import numbers

if TYPE_CHECKING:
    from vaefit.vae.settings import CheckSettings

ONLY_PRINTING = ("as_json", "quiet")
"""Parameters of the command that the check does not know."""


def check_settings(options: Mapping[str, Any], announce: Callable[[str], None]) -> CheckSettings:
    """The settings that the parameters of `overfit` mean; an option has the name of the field that it sets.

    Args:
        options: parameter name to value, as typer parsed them.
        announce: told where the embedded corpus has to be made first.
    """
    from vaefit.vae.grids.corpus import embedded_corpus
    from vaefit.vae.recipe import BetaRamp, Recipe, recipe_with
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
    knobs = {field.name: given.pop(field.name) for field in fields(Recipe)}
    recipe = recipe_with(given.pop("recipe"), **knobs)
    if given["data"] is None:
        # made last: a wrong option must not cost a corpus
        CheckSettings(**{**given, "data": "", "recipe": recipe})
        given["data"] = embedded_corpus(announce)
    return CheckSettings(**given, recipe=recipe)
