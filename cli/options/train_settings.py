"""From the options of `train`, as they were typed, to the settings of a run that begins or goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from .overfit_settings import ONLY_PRINTING, run_options, typed, with_data

if TYPE_CHECKING:
    from vaefit.vae.training.settings import TrainSettings

MAY_CHANGE = ("data", "workers", "checkpoint_every", "cache_dir", "may_scan")
"""Fields that a resumed run may have otherwise: they change no number, and other data are told by their digest."""
_FIELDS = {"compile_model": "compile", "no_scan": "may_scan", "model_arg": "model"}
"""The fields of parameters that have other names."""
_OTHERS = (*ONLY_PRINTING, "resume")


def train_settings(options: Mapping[str, Any], announce: Callable[[str], None]) -> TrainSettings:
    """The settings that the parameters of `train` mean.

    Args:
        options: parameter name to value, as typer parsed them.
        announce: told where the embedded corpus has to be made first.
    """
    from vaefit.vae.training.settings import RECIPES, TrainSettings, from_anywhere

    given = {name: value for name, value in options.items() if name not in _OTHERS}
    given["compile"] = given.pop("compile_model")
    return from_anywhere(with_data(TrainSettings, run_options(given, RECIPES), announce))


def resumed(ctx: typer.Context) -> Callable[[TrainSettings], TrainSettings]:
    """What makes of the settings of a run those that it goes on with, by the options that were typed.

    It raises SettingError for an option that has another value than in the run.
    """
    fields = {_FIELDS.get(name, name) for name in typed(ctx).difference(_OTHERS)}

    def changed(stored: TrainSettings) -> TrainSettings:
        from vaefit.cache.errors import SettingError

        given = train_settings({**ctx.params, "data": ctx.params["data"] or str(stored.data)}, lambda _: None)
        for field in sorted(fields.difference(MAY_CHANGE)):
            now, before = _value(given, field), _value(stored, field)
            if now != before:
                if field == "recipe":
                    now, before = ctx.params["recipe"], "others"
                what, do = "a run goes on with the settings that it began with", "Leave it out, or start a new run."
                raise SettingError(what, f"--{field.replace('_', '-')}", f"{now}, begun with {before}", do)
        return replace(stored, **{field: getattr(given, field) for field in fields.intersection(MAY_CHANGE)})

    return changed


def _value(settings: TrainSettings, field: str) -> object:
    return getattr(settings, field) if hasattr(settings, field) else getattr(settings.recipe, field)
