"""The whole check, as the command runs it: counts, weights, batch, model, fit, run folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vaefit.cache import ShardCounts, count_shards
from vaefit.cache.counts import Progress
from vaefit.cache.errors import DataError
from vaefit.cache.weights import listed
from vaefit.kernels import Backend, BackendChoice, choose_backend
from vaefit.kernels.compiled import BuildError, build

from .batch import Batch, batch_at, choose_batch
from .compatibility import check_labels
from .controls.rerun import OnControl
from .errors import RunError
from .graph import choose_steps
from .model import BetaVAE
from .model_source import DEFAULT_LATENT, LoadedModel
from .overfitting import overfit
from .report.event_files import require_tensorboard
from .report.folder import RunFolder
from .result import OverfitResult, Record
from .seeded import seeded
from .settings import CheckSettings, known_backend, known_device
from .start import Start
from .weighting import ClassWeights

Counts = NDArray[np.int64]


_log = logging.getLogger(__name__)

ONE_THREAD_CELLS = 1 << 15
"""A batch of up to this many cells is fitted on one thread. Two save a tenth of the whole command's time on an idle
machine, and cost several times as much on a busy one: the threads of a short step mostly wait for one another."""


@dataclass(frozen=True)
class Watcher:
    """What a caller hears while a check runs; every call is optional."""

    counting: Progress | None = None
    started: Callable[[Prepared, Start], None] | None = None
    """Once, when nothing stands in the way of the first step."""
    step: Callable[[Record], None] | None = None
    control: OnControl | None = None
    """What is changed in a rerun that looks for the cause of a failure, and each of its steps."""


@dataclass(frozen=True)
class Prepared:
    """What is known before the first step."""

    dataset: ShardCounts
    batch: Batch
    batch_counts: Counts
    weights: ClassWeights
    backend: BackendChoice
    device: torch.device


@dataclass(frozen=True)
class Check:
    """A finished check."""

    settings: CheckSettings
    prepared: Prepared
    result: OverfitResult
    run_dir: Path
    seconds: float


def run_check(settings: CheckSettings, watcher: Watcher | None = None) -> Check:
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
    folder = RunFolder.claim(settings.out, settings.overwrite)
    try:
        prepared = _prepare(settings, watcher, device, choice)
        with _threads(settings.threads, prepared.batch):
            model, result = _fit(settings, loaded, watcher, prepared, backend, folder)
        check = Check(settings, prepared, result, folder.path, time.perf_counter() - start)
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
    folder: RunFolder,
) -> tuple[nn.Module, OverfitResult]:
    """Fit the model, with every step on disk as it happens; nothing is written before there is one."""
    classes = prepared.dataset.classes
    _, height, width = prepared.dataset.shape
    try:
        model = _model(settings, loaded, prepared)
        with folder.recording(settings, prepared) as write:

            def on_start(start: Start) -> None:
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
    except (MemoryError, RuntimeError) as error:
        # torch tells of a full memory in three ways
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error):
            raise RunError(
                "the model and the batch do not fit into memory",
                f"{prepared.batch.grids.shape[0]} grids of {height} x {width}, {classes} classes",
                do="Lower --batch-size or --latent-dim.",
            ) from error
        raise
    return model, result


def _model(settings: CheckSettings, loaded: LoadedModel | None, prepared: Prepared) -> nn.Module:
    """The network under test, on its device; one of the user's draws its parameters by the run's seed."""
    classes = prepared.dataset.classes
    _, height, width = prepared.dataset.shape
    if loaded is None:
        model = BetaVAE(classes, height, width, settings.latent_dim or DEFAULT_LATENT)
        # channels last lets the CPU's convolutions run without repacking
        return model.to(prepared.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
    with seeded(settings.seed, prepared.device):
        return loaded.build(classes, height, width, settings.latent_dim).to(prepared.device)


def _prepare(settings: CheckSettings, watcher: Watcher, device: torch.device, backend: BackendChoice) -> Prepared:
    """Count, choose the batch, and derive the weights."""
    dataset = count_shards(
        settings.data,
        settings.classes,
        settings.ignore_index,
        settings.cache_dir,
        may_scan=settings.may_scan,
        progress=watcher.counting,
    )
    if dataset.classes < 2:
        raise DataError(
            "every counted cell holds one class, so there is nothing to learn",
            dataset.name,
            do="Check --ignore-index, or pass --classes.",
        )
    batch = _batch(settings, dataset)
    check_labels(batch.grids, dataset.classes, settings.ignore_index)
    batch_counts = batch.counts(dataset.classes, settings.ignore_index)
    weights = _weights(settings, dataset, batch_counts)
    return Prepared(dataset, batch, batch_counts, weights, backend, device)


@contextmanager
def _threads(wanted: int | None, batch: Batch) -> Iterator[None]:
    """Run with the threads asked for, or with what suits the batch, and put torch's number back."""
    before = torch.get_num_threads()
    torch.set_num_threads(wanted or (1 if batch.grids.size <= ONE_THREAD_CELLS else before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_device(name: str) -> torch.device:
    """`auto` takes the GPU where there is one; RunError where the device asked for is not there."""
    known_device(name)
    if name == "cuda" and not torch.cuda.is_available():
        build = "this torch is a CPU build" if torch.version.cuda is None else "torch sees no GPU"
        raise RunError("there is no CUDA device", "--device", f"cuda; {build}", "Use --device cpu, or auto.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def preferred_backend(name: str, device: torch.device) -> tuple[Backend, BackendChoice]:
    """The backend asked for and the one that runs; RunError where it cannot."""
    asked = known_backend(name)
    try:
        choice = choose_backend(asked, device)
        if choice.name == "compiled":
            build()  # before anything is counted
    except (ValueError, BuildError) as error:
        what, _, do = str(error).partition(". ")
        raise RunError(what, "--backend", name, do) from error
    return asked, choice


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
        _log.warning(f"the dataset never holds class {listed(absent)}: it cannot be tested")
    if hidden.any():
        _log.warning(f"the batch cannot show class {listed(hidden)}, which the dataset holds")
    return batch


def _weights(settings: CheckSettings, dataset: ShardCounts, batch_counts: Counts) -> ClassWeights:
    if settings.weights_file is not None:
        return ClassWeights.from_file(settings.weights_file, dataset.classes)
    if settings.recipe.weights == "batch":
        return ClassWeights.derive(settings.recipe, batch_counts, "batch")
    weights = ClassWeights.derive(settings.recipe, dataset.counts, "global")
    if weights.source == "none":
        _log.warning("class weights are off: a rare class counts only as much as the few cells that it covers")
    return weights
