"""Evaluation of a trained model on a split of its own dataset or on another dataset, with z = mu."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, get_args

import torch

from vaefit.cache import ShardCounts, count_shards
from vaefit.cache.dataset_counts import Progress
from vaefit.cache.errors import SettingError, require_range
from vaefit.cache.location import Location
from vaefit.cache.shards import Data
from vaefit.kernels import Backend, BackendChoice

from ..data.counting import counted
from ..environment.determinism import reproducible
from ..environment.device import (
    choose_device,
    cpu_threads,
    fitting_memory,
    known_backend,
    known_device,
    preferred_backend,
)
from ..errors import RunError
from ..loader.loader import open_loader
from ..loader.split import NamedSplit, Role, Split, find_named_splits, named_split
from ..model.network import described_model
from ..objective.objective import Objective
from ..optim.train_step import Step
from ..recipe import MAX_BATCH, one_of
from ..results.evaluation_summary import KIND, EvaluatedOn, EvaluationSummary
from ..results.json_values import json_file
from ..results.metrics import measured_on_split
from ..results.overfit_summary import DatasetSummary
from ..run_folder.folder import RunFolder
from ..run_folder.reader import StoredRun
from ..settings import MAX_THREADS
from ..training.prepare import named_words, seeded_split
from ..training.settings import TrainSettings
from ..training.validation import Validation, Validator
from .trained_model import TrainedModel, WhichWeights

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
    """None takes `val` for a training run on its own data, and else `all`, every grid of the dataset."""
    checkpoint: WhichWeights = "best"
    batch_size: int | None = None
    """None takes that of the run."""
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
class EvaluationFolder(RunFolder):
    """The folder of one evaluation."""

    kind: ClassVar[str] = KIND


@dataclass(frozen=True)
class _Chosen:
    """The grids that are measured."""

    dataset: ShardCounts
    data: Data
    split: Split
    role: Role
    name: SplitName
    words: str
    changed: tuple[str, ...]
    """Differences of the dataset from that of the run, in words; empty for another dataset."""

    @classmethod
    def from_settings(cls, settings: EvaluationSettings, run: StoredRun, counting: Progress | None) -> _Chosen:
        """Count the dataset and choose the split; RunError where it does not fit the model, or the split is empty."""
        stored = replace(run.settings, cache_dir=settings.cache_dir or run.settings.cache_dir, may_scan=True)
        own = settings.data is None
        source: Path | str = stored.data if settings.data is None else settings.data
        named = find_named_splits(source)
        data: Data = source if named is None else named
        if own:
            dataset = counted(stored, counting, data)
        else:
            ignore, cache_dir = stored.ignore_index, stored.cache_dir
            dataset = count_shards(data, ignore_index=ignore, cache_dir=cache_dir, progress=counting)
        _check_sizes(dataset, run)
        digest = None if run.dataset is None else run.dataset.digest
        same = own or (digest is not None and digest == dataset.digest)
        changes = run.dataset.changes(dataset) if same and run.dataset is not None else {}
        changed = [f"the {name}" for name in changes]
        if "number of grids" in changes:
            before, now = changes["number of grids"]
            changed[0] += f", {now:,}, before {before}"
        trained = stored if same and isinstance(stored, TrainSettings) else None
        name: SplitName = settings.split or ("val" if own and trained is not None else "all")
        if name == "all":
            whole = NamedSplit((dataset.grids,), ("test",))
            return cls(dataset, data, whole, "test", name, "every grid of the dataset", tuple(changed))
        split, words = _split(dataset, named, trained, name)
        if split.size(name) == 0:
            do = "Use --split val, train or all; a run keeps grids for a test with --test-share."
            raise RunError(f"the split has no grid for {name}", dataset.name, f"--split {name}", do)
        return cls(dataset, data, split, name, name, words, tuple(changed))


def evaluate(
    settings: EvaluationSettings,
    counting: Progress | None = None,
    started: Callable[[EvaluatedOn], None] | None = None,
) -> EvaluationSummary:
    """Measure a trained model and write a folder with `reconstructions.png` and `result.json`.

    Raises DataError and RunError where the folder is not that of a run, its weights are not whole, or the data do not
    fit the model.

    Args:
        counting: called with the number of cells counted so far, where the counts are not cached.
        started: called once, before the measurement.
    """
    start = time.perf_counter()
    device = choose_device(settings.device)
    backend, choice = preferred_backend(settings.backend, device)
    run = StoredRun.read(settings.run)
    with EvaluationFolder.claimed(settings.out, settings.overwrite) as folder:
        if (folder.path / "config.json").exists():
            what = "the result of the run in this folder would be lost"
            raise RunError(what, str(folder.path), do="Pass another --out.")
        trained = TrainedModel.load(run, device, settings.checkpoint)
        chosen = _Chosen.from_settings(settings, run, counting)
        if chosen.changed:
            again = ""
            if not isinstance(chosen.split, NamedSplit):
                again = "; the split is drawn anew, and may hold grids that the model was trained on"
            _log.warning(f"the data changed since the run began ({'; '.join(chosen.changed)}){again}")
        on = _described(trained, chosen, choice, device)
        if started is not None:
            started(on)
        recipe = run.recipe
        beta = recipe.beta_at(recipe.iterations if trained.step is None else trained.step)
        found = _measured(settings, trained, chosen, backend, device, beta)
        seconds, measured = time.perf_counter() - start, measured_on_split(found)
        summary = EvaluationSummary(beta=beta, on=on, seconds=seconds, run_dir=str(folder.path), **measured)
        _write(folder, summary, found, chosen.dataset.ignore_index)
        return summary


def _write(folder: EvaluationFolder, summary: EvaluationSummary, found: Validation, ignore_index: int | None) -> None:
    """Write the picture and, last, `result.json`: it marks a whole folder."""
    from ..report.reconstructions import Panels, draw_panels

    on = summary.on
    folder.remove(("result.json", "reconstructions.png"))
    after = "" if on.step is None else f" of update {on.step:,}"
    title = f"{'all grids' if on.split == 'all' else on.split}, weights{after}"
    panels = Panels.from_validation(found, len(summary.class_accuracy), ignore_index, title)
    folder.draw("reconstructions.png", partial(draw_panels, panels))
    folder.write("result.json", json_file(summary.json()))


def _measured(
    settings: EvaluationSettings,
    trained: TrainedModel,
    chosen: _Chosen,
    backend: Backend,
    device: torch.device,
    beta: float,
) -> Validation:
    """Measure with the loss and the precision of the run."""
    run, stored, config = trained.run, trained.run.settings, trained.run.config
    size = min(settings.batch_size or stored.batch_size, chosen.split.size(chosen.role))
    narrow = isinstance(stored, TrainSettings) and stored.precision == "bfloat16"
    what = f"{size} grids of {config.height} x {config.width}, {config.classes} classes"
    ignored, cells = chosen.dataset.ignore_index, size * config.height * config.width
    opened = open_loader(chosen.data, chosen.split, chosen.role, size, classes=config.classes, ignore_index=ignored)
    with (
        cpu_threads(settings.threads, cells),
        reproducible(stored.seed, device),
        fitting_memory(what),
        opened as loader,
    ):
        objective = Objective.build(run.weights().values, stored.recipe, ignored, backend, device)
        step = Step.build(trained.model, trained.adapter, objective, stored.recipe, torch.bfloat16 if narrow else None)
        return Validator(step, lambda: loader.in_order(size), loader.size, ignored).measure(beta)


def _described(trained: TrainedModel, chosen: _Chosen, choice: BackendChoice, device: torch.device) -> EvaluatedOn:
    return EvaluatedOn(
        run=str(trained.run.folder.absolute()),
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


def _check_sizes(dataset: ShardCounts, run: StoredRun) -> None:
    """Raise RunError where the grids do not fit the model."""
    config, (_, height, width) = run.config, dataset.shape
    do = "Pass DATA like those that the model was trained on, or train on these."
    if (height, width) != (config.height, config.width):
        what = f"the model takes grids of {config.height} x {config.width}"
        raise RunError(what, dataset.name, f"grids of {height} x {width}", do)
    if dataset.classes > config.classes:
        raise RunError(f"the model has {config.classes} classes", dataset.name, f"{dataset.classes} classes", do)


def _split(
    dataset: ShardCounts, named: tuple[Location, ...] | None, trained: TrainSettings | None, name: SplitName
) -> tuple[Split, str]:
    """Return the split that the data come with, or that of the run; RunError where there is neither."""
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
