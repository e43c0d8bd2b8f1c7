"""Reader of a run folder: settings, result and rows of an overfit or a training run."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_type_hints

import msgspec

from vaefit.cache.errors import VaefitError
from vaefit.cache.regular_file import open_regular, read_regular

from ..data.class_weights import ClassWeights
from ..errors import RunError
from ..model.user_model import ModelSource
from ..recipe import BetaCycles, BetaRamp, Recipe
from ..results.overfit_summary import RunSummary
from ..results.training_summary import KIND, TrainSummary
from ..settings import CheckSettings
from ..training.checkpoint import CheckpointFolder
from ..training.prepare import recipe_for
from ..training.progress import ChosenRate
from ..training.settings import TrainSettings

if TYPE_CHECKING:
    from typing_extensions import Self

    from vaefit.cache import ShardCounts

OVERFIT = "overfit"
"""Kind of an overfit run; `KIND` is that of a training run."""
CHANGED = "It was changed by hand, or is of another version: start the run again, with --overwrite."
UNFINISHED = "the run was not finished: it has no result.json"
MAX_JSON = 64 << 20
"""Bytes of a JSON file; a training run with 150,000 validations has as many."""
MAX_CSV = 4 << 30
"""Bytes of `metrics.csv`; a check of 800,000 steps with 256 classes has as many."""
MAX_LINE = 1 << 16
"""Characters of a line of `metrics.csv`; 256 classes take 6,000."""
_PASS = "Pass the folder that `train` or `overfit` named."
_UNREADABLE = "the settings of the run cannot be read"
_log = logging.getLogger("vaefit")
T = TypeVar("T")
Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]


@dataclass(frozen=True)
class DataOfRun:
    """The dataset of a run."""

    digest: str | None
    """None where it was not taken."""
    grids: int
    counts: tuple[int, ...]

    def changes(self, dataset: ShardCounts) -> dict[str, tuple[Any, Any]]:
        """Return (before, now) of each property that differs; digests are compared where both were taken."""
        pairs: dict[str, tuple[Any, Any]] = {
            "number of grids": (self.grids, dataset.grids),
            "class counts": (list(self.counts), dataset.counts.tolist()),
        }
        if None not in (self.digest, dataset.digest):
            pairs["digest"] = (self.digest, dataset.digest)
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """`config.json` of an overfit run."""

    settings: dict[str, Any]
    recipe: dict[str, Any]
    device: str
    backend: str
    threads: int
    """CPU threads of the run."""
    classes: Size
    height: Size
    width: Size
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """`config.json` of a training run: also everything that a resumed run must find unchanged."""

    format: int
    dataset: DataOfRun
    weights: tuple[float, ...]
    split: dict[str, int]
    """Grids by role."""
    loader: Literal["memory", "stream"]
    """The choice of `auto` depends on the free memory, and the order of the grids depends on the choice."""
    rate: ChosenRate
    ranks: int = 1
    """Processes that trained together."""


@dataclass(frozen=True)
class StoredRun:
    """A run in its folder, finished or not."""

    folder: Path
    config: RunConfig
    """A `TrainConfig` for a training run."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read `config.json`; RunError where the folder is not that of a run, or the file is not as it was written."""
        found = read_json(folder, "config.json")
        kind = found.get("kind", OVERFIT)
        if kind not in (OVERFIT, KIND):
            raise RunError("this is not the folder of a run", str(folder), f"one of kind {kind}", _PASS)
        form = TrainConfig if kind == KIND else RunConfig
        return cls(folder, _converted(folder / "config.json", _UNREADABLE, lambda: msgspec.convert(found, form)))

    @classmethod
    def finished(cls, folder: Path) -> Self:
        """Read a finished run; RunError, as `read` and `summary`, where there is none in the folder."""
        if not (folder / "result.json").exists():
            raise _missing(folder, "result.json")
        return cls.read(folder)

    @property
    def kind(self) -> str:
        """`overfit` or `train`."""
        return KIND if isinstance(self.config, TrainConfig) else OVERFIT

    @cached_property
    def summary(self) -> RunSummary | TrainSummary:
        """The result; RunError where the run is not finished, or `result.json` is not as it was written."""
        form: type[RunSummary | TrainSummary] = RunSummary if self.kind == OVERFIT else TrainSummary
        found, what = read_json(self.folder, "result.json"), "the result of the run cannot be read"
        return _converted(self.folder / "result.json", what, lambda: form.from_json(found))

    @property
    def result(self) -> RunSummary | TrainSummary | None:
        """The result; None where the run is not finished."""
        return self.summary if (self.folder / "result.json").exists() else None

    @cached_property
    def settings(self) -> CheckSettings | TrainSettings:
        """The settings; RunError where `config.json` holds others than those of such a run."""
        return _converted(self.folder / "config.json", _UNREADABLE, lambda: _settings(self.config))

    @property
    def recipe(self) -> Recipe:
        """The recipe, with the schedule of beta over the updates of the run."""
        settings, config = self.settings, self.config
        if not isinstance(settings, TrainSettings) or not isinstance(config, TrainConfig):
            return settings.recipe
        epoch = max(config.split.get("train", 0) // settings.batch_size, 1)
        return recipe_for(settings, settings.epochs * epoch, epoch)

    @property
    def dataset(self) -> DataOfRun | None:
        """The dataset; None for an overfit run that is not finished."""
        if isinstance(self.config, TrainConfig):
            return self.config.dataset
        found = None if self.result is None else self.result.setup.dataset
        return None if found is None else DataOfRun(found.digest, found.grids, found.counts)

    @property
    def best_step(self) -> int | None:
        """Updates done when `model.safetensors` was written; None where the run is not finished."""
        found = self.result
        if found is None:
            return None
        return found.best_step if isinstance(found, TrainSummary) else found.iterations

    def weights(self) -> ClassWeights:
        """Return the class weights; RunError for an overfit run that is not finished, and for wrong weights."""
        stored = self.config.weights if isinstance(self.config, TrainConfig) else self.summary.setup.weights.values
        what = "the class weights cannot be read"
        name = "config.json" if self.kind == KIND else "result.json"
        return _converted(self.folder / name, what, lambda: ClassWeights.from_values(stored, self.config.classes, name))

    def metrics(self) -> Iterator[dict[str, str]]:
        """Yield the rows of `metrics.csv` as text, none where the file is gone; RunError where it cannot be read."""
        with suppress(FileNotFoundError, csv.Error), _reading(self.folder / "metrics.csv"):
            yield from csv.DictReader(read_lines(self.folder))


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Read the object in a JSON file of a run folder; RunError says what the folder holds instead."""
    file, do = folder / name, "Make the run again."
    try:
        with _reading(file):
            text = read_regular(file, MAX_JSON, folder)
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(folder, name) from None
    try:
        found = msgspec.json.decode(text)  # json.loads lets NaN, 1e999 and half of a surrogate pair pass
    except (ValueError, RecursionError) as error:
        raise RunError("the file is not whole JSON", str(file), str(error), do) from error
    if not isinstance(found, dict):
        raise RunError("the file holds no JSON object", str(file), type(found).__name__, do)
    return found


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Context manager: raise RunError in place of an OSError, except for a file that is absent."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        do = "Check what it is, and its permissions."
        raise RunError("the file cannot be read", str(file), error.strerror or str(error), do) from error


def _converted(file: Path, what: str, convert: Callable[[], T]) -> T:
    """Return what `convert` makes of the content of a file; RunError where the content does not fit."""
    try:
        return convert()
    except (msgspec.ValidationError, KeyError, TypeError, ValueError, AttributeError) as error:
        got = (error.got if isinstance(error, VaefitError) else "") or str(error)
        raise RunError(what, str(file), f"no {got}" if isinstance(error, KeyError) else got, CHANGED) from error


def _settings(config: RunConfig) -> CheckSettings | TrainSettings:
    """Read the settings; any error of `_converted` where they are not those of the kind of run."""
    stored, recipe = dict(config.settings), dict(config.recipe)
    name, arguments = stored.pop("model"), stored.pop("model_arguments", {})
    data, ramp = msgspec.convert(stored.pop("data"), str), recipe.pop("beta_ramp")
    model = None
    if name is not None:
        _log.warning(f"the code of the model {name}, which the run names, is run")
        model = ModelSource.parse(name, tuple(f"{key}={value}" for key, value in arguments.items()))
    if ramp is not None:
        ramp = msgspec.convert(ramp, BetaCycles if "cycles" in ramp else BetaRamp)
    kind = TrainSettings if isinstance(config, TrainConfig) else CheckSettings
    fitted = Recipe(**_fields(Recipe, recipe), beta_ramp=ramp)
    return kind(**_fields(kind, stored), data=data, model=model, recipe=fitted)


def _fields(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """Convert values to the types of the fields of a dataclass; ValueError names the field that does not fit."""
    types, found = get_type_hints(kind), {}
    for name, value in values.items():
        try:
            found[name] = msgspec.convert(value, types.get(name, Any), dec_hook=lambda form, text: form(text))
        except msgspec.ValidationError as error:
            raise ValueError(f"{name}: {error}") from error
    return found


def _missing(folder: Path, name: str) -> RunError:
    """Return the error of a file that is not in the folder; it says what the folder is instead."""
    if not folder.exists():
        return RunError("there is no such run folder", str(folder), do=_PASS)
    if name == "result.json" and (folder / "sweep.csv").is_file():
        return RunError("this is the folder of a sweep, not of one run", str(folder), do="Pass a run folder in it.")
    if name == "result.json" and (folder / "config.json").is_file():
        rows = count_rows(folder)
        if read_json(folder, "config.json").get("kind") != KIND:
            return RunError(UNFINISHED, str(folder), f"metrics.csv of {rows} steps", "Run the check again.")
        files = CheckpointFolder.from_run(folder).files()
        # by its name alone: to read it would disturb a process that is training here
        newest = (
            f"newest checkpoint of update {int(files[0].stem.rpartition('-')[2]):,}" if files else "no checkpoint yet"
        )
        do = f"Go on with `vaefit-cli train --resume {folder}`."
        return RunError(UNFINISHED, str(folder), f"metrics.csv of {rows} validations, {newest}", do)
    return RunError("this is not the folder of a run", str(folder), f"no {name} in it", _PASS)


def count_rows(folder: Path) -> int:
    """Count the rows of `metrics.csv`, without its header."""
    with suppress(OSError):
        return max(sum(line.endswith("\n") for line in read_lines(folder)) - 1, 0)
    return 0


def read_lines(folder: Path) -> Iterator[str]:
    """Yield the lines of `metrics.csv`, an overlong one in pieces; OSError where the file cannot be read."""
    opened = open_regular(folder / "metrics.csv", MAX_CSV, folder)
    with io.TextIOWrapper(opened, "utf-8", "replace", newline="") as stream:
        yield from iter(lambda: stream.readline(MAX_LINE), "")
