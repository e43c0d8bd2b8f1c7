"""Measuring a trained model on a split of its own dataset, or on another dataset, with z = mu."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from vaefit.cache import ShardCounts, count_shards
from vaefit.cache.dataset_counts import Progress
from vaefit.cache.errors import SettingError, require_range
from vaefit.cache.location import Location
from vaefit.cache.shards import Data
from vaefit.kernels import Backend, BackendChoice

from ..model.inspection import described_model
from ..environment.device import choose_device, cpu_threads, fitting_memory, preferred_backend
from ..data.counting import counted
from ..errors import RunError
from ..loader.loader import open_loader
from ..loader.named_splits import find_named_splits
from ..loader.split import ROLES, NamedSplit, Role, Split, named_split
from ..objective.objective import Objective
from ..recipe import one_of
from ..results.evaluation_summary import EvaluatedOn, EvaluationSummary
from ..run_folder.evaluation_folder import EvaluationFolder
from ..results.overfit_summary import DatasetSummary
from ..environment.determinism import reproducible, seeded
from ..settings import MAX_BATCH, MAX_THREADS
from ..environment.device import known_backend, known_device
from ..optim.train_step import Step
from .past_run import PastRun
from ..training.prepare import named_words, seeded_split
from ..training.settings import TrainSettings
from .trained_model import TrainedModel, WhichWeights
from ..training.validation import Validation, Validator

SplitName = Literal["val", "train", "test", "all"]
_log = logging.getLogger("vaefit")


@dataclass(frozen=True)
class EvaluationSettings:
    """The settings of `vaefit-cli evaluate`; the names are those of its options.

    Raises SettingError for a value that is wrong by itself.
    """

    run: Path
    data: Path | str | None = None
    """None takes the dataset of the run."""
    split: SplitName | None = None
    """None is `val` for a training run on its own data, and else `all`, every grid of the dataset."""
    checkpoint: WhichWeights = "best"
    batch_size: int | None = None
    """None is that of the run."""
    cache_dir: Path | None = None
    device: str = "auto"
    backend: str = "auto"
    threads: int | None = None
    out: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.split is not None:
            one_of("--split", self.split, get_args(SplitName))
        one_of("--checkpoint", self.checkpoint, get_args(WhichWeights))
        if self.batch_size is not None:
            require_range("--batch-size", self.batch_size, 1, MAX_BATCH)
        if self.threads is not None:
            require_range("--threads", self.threads, 1, MAX_THREADS)
        known_device(self.device)
        known_backend(self.backend)


@dataclass(frozen=True)
class WholeDataset:
    """A `Split` in which every grid has one role, `test`."""

    grids: int

    def roles(self, first: int, stop: int) -> NDArray[np.uint8]:
        """(stop - first,), all of them an index into ROLES."""
        return np.full(stop - first, ROLES.index("test"), np.uint8)

    def size(self, role: Role) -> int:
        """How many grids have the role."""
        return self.grids if role == "test" else 0


@dataclass(frozen=True)
class _Chosen:
    """The grids to measure on."""

    dataset: ShardCounts
    data: Data
    split: Split
    role: Role
    name: SplitName
    words: str
    changed: tuple[str, ...]

    @classmethod
    def from_settings(cls, settings: EvaluationSettings, run: PastRun, counting: Progress | None) -> _Chosen:
        """Count the dataset and find the split; RunError where it is not for the model, or has no such grids."""
        told = replace(run.settings, cache_dir=settings.cache_dir or run.settings.cache_dir, may_scan=True)
        own = settings.data is None
        source: Path | str = told.data if settings.data is None else settings.data
        named = find_named_splits(source)
        data: Data = source if named is None else named
        if own:
            dataset = counted(told, counting, data)
        else:
            dataset = count_shards(data, None, told.ignore_index, told.cache_dir, progress=counting)
        _check_sizes(dataset, run)
        digest = run.dataset.get("digest")
        if own or (digest is not None and digest == dataset.digest):
            changed = _changed(dataset, run)
            trained = told if isinstance(told, TrainSettings) else None
        else:
            changed, trained = (), None
        default: SplitName = "val" if own and trained is not None else "all"
        name = settings.split or default
        if name == "all":
            whole = WholeDataset(dataset.grids)
            return cls(dataset, data, whole, "test", name, "every grid of the dataset", changed)
        split, words = _split(dataset, named, trained, name)
        if split.size(name) == 0:
            do = "Use --split val, train or all; a run keeps grids for a test with --test-share."
            raise RunError(f"the split has no grid for {name}", dataset.name, f"--split {name}", do)
        return cls(dataset, data, split, name, name, words, changed)


def evaluate(
    settings: EvaluationSettings,
    counting: Progress | None = None,
    started: Callable[[EvaluatedOn], None] | None = None,
) -> EvaluationSummary:
    """Measure a trained model, and leave a folder with `reconstructions.png` and `result.json` behind.

    Raises DataError and RunError where it cannot run: the folder is not that of a run or has no whole weights, or the
    data are not for the model.

    Args:
        counting: hears how many cells are counted, where they are not cached.
        started: called once, when nothing stands in the way.
    """
    start = time.perf_counter()
    device = choose_device(settings.device)
    backend, choice = preferred_backend(settings.backend, device)
    run = PastRun.read(settings.run)
    folder = EvaluationFolder.claim(settings.out, settings.overwrite)
    try:
        folder.check_no_run()
        trained = TrainedModel.load(run, device, settings.checkpoint)
        chosen = _Chosen.from_settings(settings, run, counting)
        if chosen.changed:
            again = ""
            if not isinstance(chosen.split, WholeDataset | NamedSplit):
                again = "; the split is drawn anew, and may hold grids that the model was trained on"
            _log.warning(f"the data changed since the run began ({'; '.join(chosen.changed)}){again}")
        on = _described(trained, chosen, choice, device)
        if started is not None:
            started(on)
        recipe = run.recipe()
        beta = recipe.beta_at(recipe.iterations if trained.step is None else trained.step)
        found = _measured(settings, trained, chosen, backend, device, beta)
        return folder.finish(on, found, beta, run.settings.ignore_index, time.perf_counter() - start)
    except BaseException:
        folder.release()
        raise


def _measured(
    settings: EvaluationSettings,
    trained: TrainedModel,
    chosen: _Chosen,
    backend: Backend,
    device: torch.device,
    beta: float,
) -> Validation:
    """As the run itself validated: the same loss, the same precision."""
    run, told = trained.run, trained.run.settings
    size = min(settings.batch_size or told.batch_size, chosen.split.size(chosen.role))
    narrow = isinstance(told, TrainSettings) and told.precision == "bfloat16"
    what = f"{size} grids of {run.height} x {run.width}, {run.classes} classes"
    with ExitStack() as stack:
        stack.enter_context(cpu_threads(settings.threads, size * run.height * run.width))
        stack.enter_context(reproducible())
        stack.enter_context(seeded(told.seed, device))  # a model of one's own may draw
        stack.enter_context(fitting_memory(what))
        loader = stack.enter_context(
            open_loader(
                chosen.data,
                chosen.split,
                chosen.role,
                size,
                classes=run.classes,
                ignore_index=told.ignore_index,
            )
        )
        objective = Objective.build(run.weights().values, told.recipe, told.ignore_index, backend, device)
        step = Step.build(trained.model, trained.adapter, objective, told.recipe, torch.bfloat16 if narrow else None)
        return Validator(step, lambda: loader.in_order(size), loader.size, told.ignore_index).measure(beta)


def _described(trained: TrainedModel, chosen: _Chosen, choice: BackendChoice, device: torch.device) -> EvaluatedOn:
    return EvaluatedOn(
        run=str(trained.run.folder),
        trained_by=trained.run.kind,
        checkpoint=trained.which,
        step=trained.step,
        split=chosen.name,
        split_reason=chosen.words,
        grids=chosen.split.size(chosen.role),
        changed=chosen.changed,
        dataset=DatasetSummary.from_counts(chosen.dataset),
        model=described_model(trained.model),
        adapter=str(trained.adapter),
        backend=choice.name,
        backend_reason=choice.reason,
        device=str(device),
    )


def _check_sizes(dataset: ShardCounts, run: PastRun) -> None:
    """Raise RunError where the grids are not for the model."""
    _, height, width = dataset.shape
    do = "Pass DATA like those that the model was trained on, or train on these."
    if (height, width) != (run.height, run.width):
        what = f"the model takes grids of {run.height} x {run.width}"
        raise RunError(what, dataset.name, f"grids of {height} x {width}", do)
    if dataset.classes > run.classes:
        raise RunError(f"the model has {run.classes} classes", dataset.name, f"{dataset.classes} classes", do)


def _split(
    dataset: ShardCounts, named: tuple[Location, ...] | None, trained: TrainSettings | None, name: SplitName
) -> tuple[Split, str]:
    """The split of the run, or the one that the data come with; RunError where there is neither."""
    if named is not None:
        return named_split(named), named_words(named)
    if trained is None:
        do = "Leave --split out: every grid is measured."
        raise RunError("the run has no split of these data", dataset.name, f"--split {name}", do)
    try:
        return seeded_split(trained, dataset.grids)
    except SettingError as error:  # a run that validated had a split
        do = "Put the data back as they were, or use --split all."
        raise RunError("the data cannot be split as the run did", dataset.name, str(error), do) from error


def _changed(dataset: ShardCounts, run: PastRun) -> tuple[str, ...]:
    """What is not as it was when the run began, in words; a digest is not always taken."""
    known = run.dataset
    now = {"grids": dataset.grids, "counts": dataset.counts.tolist(), "digest": dataset.digest}
    found = {key: (known.get(key), value) for key, value in now.items()}
    different = {key for key, (before, after) in found.items() if before != after and None not in (before, after)}
    words = {
        "grids": f"the number of grids, {dataset.grids:,}, before {known.get('grids')}",
        "counts": "the class counts",
        "digest": "the digest",
    }
    return tuple(text for key, text in words.items() if key in different)
