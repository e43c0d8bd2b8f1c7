"""A run found again in its folder, of training or of the check: its settings, its sizes and its class weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaefit.cache.errors import VaefitError

from ..errors import RunError
from ..recipe import Recipe
from ..run_folder.reader import UNFINISHED, read_json
from ..run_folder.settings_reader import CHANGED, stored_settings
from ..results.training_summary import KIND
from ..settings import CheckSettings
from ..data.class_weights import ClassWeights
from ..training.prepare import recipe_for
from .resume import ResumableRun
from ..training.settings import TrainSettings

CHECK = "overfit"
_DO = "Pass the folder that `train` or `overfit` named."


@dataclass(frozen=True)
class PastRun:
    """A run that has begun, whether or not it came to its end."""

    folder: Path
    """Absolute."""
    settings: TrainSettings | CheckSettings
    classes: int
    height: int
    width: int
    config: dict[str, Any]
    """What `config.json` holds."""
    result: dict[str, Any] | None
    """What `result.json` holds; None where the run has not come to its end."""

    @classmethod
    def read(cls, folder: Path) -> PastRun:
        """Read `config.json`, and `result.json` where it is there; RunError where the folder is not that of a run."""
        if not folder.exists():
            raise RunError("there is no such run folder", str(folder), do=_DO)
        if not (folder / "config.json").is_file():
            raise RunError("this is not the folder of a run", str(folder), "no config.json in it", _DO)
        config = read_json(folder, "config.json")
        kind = config.get("kind", CHECK)
        if kind == KIND:
            settings: TrainSettings | CheckSettings = ResumableRun.read(folder).settings
        elif kind == CHECK:
            settings = stored_settings(folder, config, CheckSettings)
        else:
            raise RunError("this is not the folder of a run", str(folder), f"one of kind {kind}", _DO)
        classes, height, width = (_size(folder, config, name) for name in ("classes", "height", "width"))
        result = read_json(folder, "result.json") if (folder / "result.json").exists() else None
        return cls(folder.absolute(), settings, classes, height, width, config, result)

    @property
    def kind(self) -> str:
        """`train` or `overfit`."""
        return KIND if isinstance(self.settings, TrainSettings) else CHECK

    @property
    def dataset(self) -> dict[str, Any]:
        """`grids`, `counts` and `digest` of the dataset that it was fitted on; empty where they are not known."""
        found = self.config.get("dataset") or (self.result or {}).get("dataset")
        return found if isinstance(found, dict) else {}

    @property
    def counts(self) -> list[int] | None:
        """Cells of each class in that dataset; None where they are not known."""
        found = self.dataset.get("counts")
        fits = isinstance(found, list) and len(found) == self.classes and all(type(count) is int for count in found)
        return found if fits else None

    @property
    def best_step(self) -> int | None:
        """Updates after which its weights were kept; None where it has not come to its end."""
        found = (self.result or {}).get("best_step" if self.kind == KIND else "iterations")
        return found if type(found) is int else None

    def weights(self) -> ClassWeights:
        """The class weights that it was fitted with; RunError where its folder does not have them."""
        if self.kind == KIND:
            where, values = "config.json", self.config.get("weights")
        elif self.result is None:
            raise RunError(UNFINISHED, str(self.folder), do="Run the check again.")
        else:
            where, values = "result.json", (self.result.get("weights") or {}).get("values")
        try:
            return ClassWeights.from_values(values or (), self.classes, where)
        except (VaefitError, TypeError, ValueError) as error:
            got = error.got if isinstance(error, VaefitError) else str(error)
            raise RunError("the class weights cannot be read", str(self.folder / where), got, CHANGED) from error

    def recipe(self) -> Recipe:
        """The recipe, with the schedule of beta that it had over its updates."""
        settings = self.settings
        if not isinstance(settings, TrainSettings):
            return settings.recipe
        epoch = max(int(self.config["split"]["train"]) // settings.batch_size, 1)
        return recipe_for(settings, settings.epochs * epoch, epoch)


def _size(folder: Path, config: dict[str, Any], name: str) -> int:
    found = config.get(name)
    if type(found) is not int or found < 1:
        where = str(folder / "config.json")
        raise RunError("the sizes of the run cannot be read", where, f"{name} {found}", CHANGED)
    return found
