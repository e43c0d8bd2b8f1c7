"""Overfit run of the command: counts, weights, batch, network, fit, run folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from inspect import unwrap

from torch import nn

from vaefit.cache.dataset_counts import Progress
from vaefit.cache.hdf5.open_files import shared_files
from vaefit.cache.schemes import format_labels

from ..data.batch import batch_at, choose_batch
from ..data.class_weights import ClassWeights
from ..diagnosis.reruns import OnControl
from ..environment.device import cpu_threads, fitting_memory, require_memory
from ..fitting.cuda_graph import choose_steps
from ..fitting.result import OverfitResult, OverfitRun, Prepared, Record, RunHeader
from ..fitting.setup import Compute, RunData
from ..model.network import build_network
from ..overfitting import overfit
from ..run_folder.overfit_folder import OverfitFolder
from ..run_folder.tensorboard_events import require_tensorboard
from ..settings import CheckSettings
from ..training.interrupt import StopRequest, stop_request

_log = logging.getLogger("vaefit")


@dataclass(frozen=True)
class Watcher:
    """Callbacks of an overfit run; every one is optional."""

    counting: Progress | None = None
    started: Callable[[Prepared, RunHeader], None] | None = None
    """Called once, before the first step."""
    step: Callable[[Record], None] | None = None
    control: OnControl | None = None
    """Called with the change of a diagnosis rerun and with the record of each of its steps."""


def run_overfit(
    settings: CheckSettings, watcher: Watcher | None = None, request: StopRequest | None = None
) -> OverfitRun:
    """Run the overfit check and write its run folder.

    Ctrl-C or SIGTERM after the first step ends the run there, and its folder is written as that of any other; before
    it, and at the second time, KeyboardInterrupt is raised.

    Args:
        request: stop request of the caller, who receives the signals; None takes them here.

    Raises SettingError for settings that are wrong by themselves, DataError and RunError where it cannot run. The
    folder is claimed first, so that nothing is computed that could not be written.
    """
    if request is None:
        with stop_request(begun=False) as request:
            return run_overfit(settings, watcher, request)
    start = time.perf_counter()
    watcher = watcher or Watcher()
    if settings.tensorboard:
        require_tensorboard()
    compute = Compute.from_settings(settings)
    # an impossible --graph must fail before the dataset is counted
    choose_steps(settings.graph, compute.device, settings.recipe, compute.backend.name, settings.model is None)
    request.begun = True  # a signal waits: a folder that is claimed in part would stay
    with OverfitFolder.claimed(settings.out, settings.overwrite) as folder:
        request.expect_nothing()
        prepared = _prepare(settings, watcher, compute)
        settings = replace(settings, ignore_index=prepared.dataset.ignore_index)  # an attribute may declare it
        with cpu_threads(settings.threads, prepared.batch.grids.size):
            model, result = _fit(settings, watcher, compute, prepared, folder, request)
        check = OverfitRun(settings, prepared, result, folder.path, time.perf_counter() - start)
        folder.write_result(check, model)
    return check


def _fit(
    settings: CheckSettings,
    watcher: Watcher,
    compute: Compute,
    prepared: Prepared,
    folder: OverfitFolder,
    request: StopRequest,
) -> tuple[nn.Module, OverfitResult]:
    """Fit the network and write every step to disk at once; nothing is written before the first step."""
    classes = prepared.dataset.classes
    size, height, width = prepared.batch.grids.shape
    with fitting_memory(f"{size} grids of {height} x {width}, {classes} classes"):
        model = build_network(
            compute.loaded, classes, height, width, settings.latent_dim, settings.seed, compute.device
        )
        with folder.recording(settings, prepared) as write:

            def on_step(record: Record) -> None:
                request.begun = True  # before the first file is written: a folder is whole, or it is not there
                write(record)
                if watcher.step is not None:
                    watcher.step(record)

            result = unwrap(overfit)(
                model,
                prepared.batch,
                classes=classes,
                weights=prepared.weights,
                recipe=settings.recipe,
                ignore_index=settings.ignore_index,
                seed=settings.seed,
                backend=compute.requested,
                graph=settings.graph,
                diagnose=settings.diagnose,
                on_start=None if watcher.started is None else partial(watcher.started, prepared),
                on_step=on_step,
                on_control=watcher.control,
                stop=lambda: request.requested,
            )
    return model, result


def _prepare(settings: CheckSettings, watcher: Watcher, compute: Compute) -> Prepared:
    with shared_files():
        dataset = RunData.from_settings(settings, watcher.counting).counts
        ignored = dataset.ignore_index
        data = [shard.location for shard in dataset.shards]
        grids = settings.batch_size if settings.indices is None else len(settings.indices)
        require_memory(grids, dataset.shape[1:], dataset.classes)
        if settings.indices is not None:
            batch = batch_at(data, settings.indices, settings.allow_duplicates)
        else:
            size, seed, duplicates = settings.batch_size, settings.batch_seed, settings.allow_duplicates
            batch = choose_batch(data, dataset.counts, size, seed, ignored, duplicates)
    batch_counts = batch.counts(dataset.classes, ignored)
    hidden = (dataset.counts > 0) & (batch_counts == 0)
    if hidden.any():
        _log.warning(f"the batch cannot show class {format_labels(hidden)}, which the dataset holds")
    weights = ClassWeights.from_recipe(settings.recipe, settings.weights_file, dataset.counts, batch_counts)
    return Prepared(dataset, batch, batch_counts, weights, compute.backend, compute.device)
