"""The whole check, as the command runs it: counts, weights, batch, model, fit, run folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from vaefit.cache import ShardCounts
from vaefit.cache.dataset_counts import Progress
from vaefit.cache.hdf5.open_files import shared_files
from vaefit.cache.schemes import format_labels
from vaefit.kernels import Backend, BackendChoice

from ..data.batch import Batch, batch_at, check_labels, choose_batch
from ..data.class_weights import ClassWeights
from ..data.counting import counted
from ..diagnosis.reruns import OnControl
from ..environment.device import choose_device, cpu_threads, fitting_memory, preferred_backend
from ..fitting.check_result import OverfitRun, Prepared
from ..fitting.cuda_graph import choose_steps
from ..fitting.result import OverfitResult, Record
from ..fitting.run_setup import RunHeader
from ..loader.split import find_named_splits
from ..model.factory import build_network
from ..model.user_model import LoadedModel
from ..overfitting import overfit
from ..run_folder.overfit_folder import OverfitFolder
from ..run_folder.tensorboard_events import require_tensorboard
from ..settings import CheckSettings

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watcher:
    """What a caller hears while a check runs; every call is optional."""

    counting: Progress | None = None
    started: Callable[[Prepared, RunHeader], None] | None = None
    """Once, when nothing stands in the way of the first step."""
    step: Callable[[Record], None] | None = None
    control: OnControl | None = None
    """What is changed in a rerun that looks for the cause of a failure, and each of its steps."""


def run_overfit(settings: CheckSettings, watcher: Watcher | None = None) -> OverfitRun:
    """Run the check and leave a run folder behind.

    Raises SettingError for settings that are wrong by themselves, DataError and RunError where it cannot run. The
    folder is claimed first, so that nothing is computed that could not be written.
    """
    start = time.perf_counter()
    watcher = watcher or Watcher()
    if settings.tensorboard:
        require_tensorboard()
    device = choose_device(settings.device)
    backend, choice = preferred_backend(settings.backend, device)
    choose_steps(settings.graph, device, settings.recipe, choice.name, settings.model is None)  # not after counting
    loaded = None if settings.model is None else settings.model.load()
    folder = OverfitFolder.claim(settings.out, settings.overwrite)
    try:
        prepared = _prepare(settings, watcher, device, choice)
        with cpu_threads(settings.threads, prepared.batch.grids.size):
            model, result = _fit(settings, loaded, watcher, prepared, backend, folder)
        check = OverfitRun(settings, prepared, result, folder.path, time.perf_counter() - start)
        folder.write_result(check, model)
    except BaseException:
        folder.release()
        raise
    return check


def _fit(
    settings: CheckSettings,
    loaded: LoadedModel | None,
    watcher: Watcher,
    prepared: Prepared,
    backend: Backend,
    folder: OverfitFolder,
) -> tuple[nn.Module, OverfitResult]:
    """Fit the model, with every step on disk as it happens; nothing is written before there is one."""
    classes = prepared.dataset.classes
    _, height, width = prepared.dataset.shape
    what = f"{prepared.batch.grids.shape[0]} grids of {height} x {width}, {classes} classes"
    with fitting_memory(what):
        model = build_network(loaded, classes, height, width, settings.latent_dim, settings.seed, prepared.device)
        with folder.recording(settings, prepared) as write:

            def on_start(start: RunHeader) -> None:
                if watcher.started is not None:
                    watcher.started(prepared, start)

            def on_step(record: Record) -> None:
                write(record)
                if watcher.step is not None:
                    watcher.step(record)

            result = overfit(
                model,
                prepared.batch,
                classes=classes,
                weights=prepared.weights,
                recipe=settings.recipe,
                ignore_index=settings.ignore_index,
                seed=settings.seed,
                backend=backend,
                graph=settings.graph,
                diagnose=settings.diagnose,
                on_start=on_start,
                on_step=on_step,
                on_control=watcher.control,
            )
    return model, result


def _prepare(settings: CheckSettings, watcher: Watcher, device: torch.device, backend: BackendChoice) -> Prepared:
    """Count, choose the batch, and derive the weights."""
    with shared_files():
        named = find_named_splits(settings.data)
        data = settings.data if named is None else named  # splits included, as in training
        dataset = counted(settings, watcher.counting, data)
        batch = _batch(settings, dataset)
    check_labels(batch.grids, dataset.classes, settings.ignore_index)
    batch_counts = batch.counts(dataset.classes, settings.ignore_index)
    weights = ClassWeights.from_recipe(settings.recipe, settings.weights_file, dataset.counts, batch_counts)
    return Prepared(dataset, batch, batch_counts, weights, backend, device)


def _batch(settings: CheckSettings, dataset: ShardCounts) -> Batch:
    data = [shard.location for shard in dataset.shards]
    if settings.indices is not None:
        batch = batch_at(data, settings.indices, settings.allow_duplicates)
    else:
        batch = choose_batch(
            data,
            dataset.counts,
            settings.batch_size,
            settings.batch_seed,
            settings.ignore_index,
            settings.allow_duplicates,
        )
    shown = batch.counts(dataset.classes, settings.ignore_index) > 0
    absent = dataset.counts == 0
    if settings.ignore_index in range(dataset.classes):
        absent[settings.ignore_index] = False  # nobody expects it
    hidden = (dataset.counts > 0) & ~shown
    if absent.any():
        _log.warning(f"the dataset never holds class {format_labels(absent)}: it cannot be tested")
    if hidden.any():
        _log.warning(f"the batch cannot show class {format_labels(hidden)}, which the dataset holds")
    return batch
