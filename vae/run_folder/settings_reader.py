"""The settings of a run, read again from its `config.json`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, TypeVar

from vaefit.cache.errors import SettingError

from ..errors import RunError
from ..model.user_model import ModelSource
from ..recipe import BetaCycles, BetaRamp, Recipe
from ..settings import RunSettings

_log = logging.getLogger("vaefit")
Settings = TypeVar("Settings", bound=RunSettings)
CHANGED = "It was changed by hand, or is of another version: start the run again, with --overwrite."
"""What to do about a file of a run folder that does not say what it should."""
_PATHS = ("weights_file", "cache_dir", "out")


def stored_settings(folder: Path, config: dict[str, Any], kind: type[Settings]) -> Settings:
    """The settings in what `config.json` of a folder holds; RunError where they are something else."""
    try:
        values, recipe = dict(config["settings"]), dict(config["recipe"])
        arguments = values.pop("model_arguments", {})
        if values["model"] is not None:
            _log.warning(f"the code of the model {values['model']}, which the run names, is run")
            values["model"] = ModelSource.parse(values["model"], tuple(f"{k}={v}" for k, v in arguments.items()))
        values.update({name: Path(values[name]) for name in _PATHS if values[name] is not None})
        if values.get("indices") is not None:
            values["indices"] = tuple(values["indices"])
        ramp = recipe["beta_ramp"]
        if ramp is not None:
            recipe["beta_ramp"] = BetaCycles(**ramp) if "cycles" in ramp else BetaRamp(**ramp)
        return kind(**values, recipe=Recipe(**{**recipe, "betas": tuple(recipe["betas"])}))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = error.got if isinstance(error, SettingError) else f"{type(error).__name__}: {error}"
        where = str(folder / "config.json")
        raise RunError("the settings of the run cannot be read", where, said, CHANGED) from error
