"""Training run of the command: counts, weights, split, network, updates, run folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vaefit.cache.communicator import from_rank_zero
from vaefit.cache.dataset_counts import Progress as Counting
from vaefit.cache.errors import SettingError

from ..data.batch import Batch
from ..environment.determinism import reproducible
from ..environment.device import cpu_threads, fitting_memory
from ..errors import RunError
from ..fitting.lr_range_test import range_test
from ..fitting.setup import Compute, ReadyModel
from ..loader.loader import Loader, open_loader
from ..loader.split import ROLES, Role
from ..model.network import build_network, described_model
from ..optim.train_step import Step
from ..recipe import Recipe
from ..results.overfit_summary import DatasetSummary, WeightsSummary
from ..results.training_summary import TrainingSetup, TrainSummary
from ..run_folder.training_folder import TrainFolder
from ..training.checkpoint import Checkpoint, size_limit
from ..training.interrupt import TrainingStopped, stop_request
from ..training.loop import Training
from ..training.prepare import PreparedTraining, recipe_for
from ..training.progress import ChosenRate, Plan, RunRecorder
from ..training.settings import TrainSettings, from_anywhere
from ..training.validation import Validator
from .resume import ResumableRun

if TYPE_CHECKING:
    from ..distributed.process_group import ProcessGroup

_log = logging.getLogger("vaefit")
_DTYPES = {"float32": None, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class TrainWatcher:
    """Callbacks of a training run; every one is optional."""

    counting: Counting | None = None
    started: Callable[[TrainingSetup], None] | None = None
    """Called once, before the first update."""
    update: Callable[[Training], None] | None = None
    """Called after every update and every validation."""


def run_training(
    settings: TrainSettings, watcher: TrainWatcher | None = None, job: ProcessGroup | None = None
) -> TrainSummary:
    """Train and write the run folder.

    All ranks of a `job` call this with the same settings, share each batch, and return the same result; rank 0 writes.

    Raises SettingError for settings that are wrong by themselves, DataError and RunError where it cannot run, and
    TrainingStopped, a KeyboardInterrupt, where a stop was requested.
    """
    claimed = TrainFolder.claimed(settings.out, settings.overwrite)
    with ExitStack() as stack:
        folder = from_rank_zero(job, lambda: stack.enter_context(claimed))
        return _Run(from_anywhere(settings), folder, watcher or TrainWatcher(), None, job).train()


def resume_training(
    folder: Path,
    changed: Callable[[TrainSettings], TrainSettings],
    watcher: TrainWatcher | None = None,
    job: ProcessGroup | None = None,
) -> TrainSummary:
    """Continue the run in a folder from its newest whole checkpoint; the result equals that of an unstopped run.

    Args:
        changed: returns the settings to continue with, from those of the run; SettingError where one must not change.
        job: as for `run_training`; the number of ranks may change only where the grids are in memory.

    Raises as `run_training`, and RunError where the folder holds no such run, the data or the weights have changed
    since the run began, or another process writes in its folder.
    """
    with ExitStack() as stack:
        stored = from_rank_zero(job, lambda: stack.enter_context(ResumableRun.locked(folder)))
        stored.check_ranks(1 if job is None else job.size)
        settings = changed(stored.settings)
        return _Run(settings, TrainFolder(folder.absolute()), watcher or TrainWatcher(), stored, job).train()


@dataclass
class _Run:
    """A training run, new or resumed."""

    settings: TrainSettings
    folder: TrainFolder
    watcher: TrainWatcher
    stored: ResumableRun | None
    job: ProcessGroup | None

    def train(self) -> TrainSummary:
        """Make the run, from counting to the result."""
        settings, job = self.settings, self.job
        compute = Compute.from_settings(settings)
        if job is not None:
            job.check_device(compute.device)
        prepared = PreparedTraining.from_settings(settings, compute, self.watcher.counting, job)
        # an attribute of the data may declare it
        settings = self.settings = replace(settings, ignore_index=prepared.dataset.ignore_index)
        if self.stored is not None:
            self.stored.check(prepared)
        _, height, width = prepared.dataset.shape
        grids = -(-settings.batch_size // (1 if job is None else job.size))
        threads = settings.threads if self.stored is None else self.stored.began.threads
        with ExitStack() as stack:
            stack.enter_context(cpu_threads(threads, grids * height * width))
            stack.enter_context(reproducible(settings.seed, compute.device))
            train = stack.enter_context(self._loader(prepared, "train"))
            val = stack.enter_context(self._loader(prepared, "val"))
            if job is not None and val.size < job.size:
                what, got = "there is no grid for each rank to validate on", f"{val.size} over {job.size} ranks"
                raise SettingError(what, "--val-share", got, "Raise it, or start fewer.")
            batch = f"{grids} grids of {height} x {width}, {prepared.dataset.classes} classes"
            stack.enter_context(fitting_memory(batch))
            return self._train(compute, prepared, train, val)

    def _loader(self, prepared: PreparedTraining, role: Role) -> AbstractContextManager[Loader]:
        settings = self.settings
        return open_loader(
            prepared.data,
            prepared.split,
            role,
            settings.batch_size,
            seed=settings.seed,
            mode=settings.loader if self.stored is None else self.stored.began.loader,
            workers=settings.workers,
            window=settings.window,
            classes=prepared.dataset.classes,
            ignore_index=settings.ignore_index,
            ranks=self.job,
        )

    def _train(self, compute: Compute, prepared: PreparedTraining, train: Loader, val: Loader) -> TrainSummary:
        settings, classes, ignored = self.settings, prepared.dataset.classes, self.settings.ignore_index
        updates = settings.epochs * train.steps
        recipe = recipe_for(settings, updates, train.steps)
        _, height, width = prepared.dataset.shape
        latent, seed = settings.latent_dim, settings.seed
        model = build_network(compute.loaded, classes, height, width, latent, seed, compute.device)
        first = Batch(self._first_batch(train), ())
        ready = ReadyModel.from_batch(model, first, recipe, seed, compute.requested, classes, prepared.weights, ignored)
        rate = from_rank_zero(self.job, lambda: self._rate(recipe, ready))
        recipe = replace(recipe, lr=rate.lr)
        if settings.compile:
            model.compile()
        setup = self._setup(prepared, ready, train, updates, rate)
        if self.watcher.started is not None:
            self.watcher.started(setup)
        step = Step.build(model, ready.adapter, ready.objective, recipe, _DTYPES[settings.precision])
        own = train.rows.stop - train.rows.start
        batches = -(-val.size // settings.batch_size)
        validator = Validator(step, lambda: val.in_order(own), val.size, ignored, batches, self.job)
        every = settings.validate_every or train.steps
        plan = Plan(updates, train.steps, every, settings.patience, settings.checkpoint_every)
        checkpoint = from_rank_zero(self.job, lambda: self._begin(prepared, train, rate, model))
        if self.job is not None:
            from ..distributed.ddp_step import DistributedStep

            step = DistributedStep.from_step(self.job, step, recipe)
        with self._recording(classes, checkpoint) as recorder:
            training = Training(
                step, recipe, plan, train, validator, recorder, seed, prepared.augment, ignored, self.job
            )
            if checkpoint is not None:
                training.restore(checkpoint)
            with self._resumable(), stop_request(insisting=self.job is None) as stop:
                training.run(stop, self.watcher.update)
        with self._resumable():
            best = training.best_validation()
            return from_rank_zero(self.job, lambda: self.folder.finish(setup, training.progress, best, ignored))

    def _first_batch(self, train: Loader) -> NDArray[np.int64]:
        """Return the grids (B, H, W) of all ranks that the network is initialised and inspected with."""
        own = next(iter(train.epoch(0))).astype(np.int64)
        if self.job is None:
            return own
        return np.concatenate(self.job.share(self.job.gather(own)))

    def _recording(self, classes: int, checkpoint: Checkpoint | None) -> AbstractContextManager[RunRecorder]:
        if self.job is None or self.job.rank == 0:
            return self.folder.recording(classes, checkpoint)
        return nullcontext(RunRecorder())

    def _rate(self, recipe: Recipe, ready: ReadyModel) -> ChosenRate:
        """Return the learning rate; a range test on the first batch chooses it once, for all resumptions."""
        if self.stored is not None:
            return self.stored.began.rate
        tested = range_test(ready, recipe, self.settings.seed)
        return ChosenRate(recipe.rate, None) if tested is None else ChosenRate(tested.rate, str(tested))

    def _begin(
        self, prepared: PreparedTraining, train: Loader, rate: ChosenRate, model: nn.Module
    ) -> Checkpoint | None:
        """Return the checkpoint to continue from; begin the folder and return None where there is none."""
        if self.stored is not None:
            self.folder.remove_unfinished()
            checkpoint = self.folder.checkpoints.newest(size_limit(model))
            if checkpoint is not None:
                return checkpoint
            self.stored.check_unbegun()
            _log.warning("the run has no checkpoint yet: it starts from the beginning")
        self.folder.begin(self.settings, prepared, train.mode, rate, self.job)
        return None

    def _setup(
        self, prepared: PreparedTraining, ready: ReadyModel, train: Loader, updates: int, rate: ChosenRate
    ) -> TrainingSetup:
        return TrainingSetup(
            dataset=DatasetSummary.from_counts(prepared.dataset),
            weights=WeightsSummary.from_weights(prepared.weights),
            split={role: prepared.split.size(role) for role in ROLES},
            split_reason=prepared.split_words,
            backend=prepared.backend.name,
            backend_reason=prepared.backend.reason,
            device=str(prepared.device),
            model=described_model(ready.model),
            adapter=str(ready.adapter),
            loader=train.how,
            batch_size=self.settings.batch_size,
            epochs=self.settings.epochs,
            updates=updates,
            updates_an_epoch=train.steps,
            preflight=ready.agreement,
            lr=rate.lr,
            lr_reason=rate.reason,
            ranks=1 if self.job is None else self.job.size,
        )

    @contextmanager
    def _resumable(self) -> Iterator[None]:
        """Add the command that resumes the run to the error that ends it."""
        command = "vaefit-cli" if self.job is None else "torchrun ... -m vaefit.cli"
        on = f"o on with `{command} train --resume {self.folder.path}`."
        try:
            yield
        except RunError as error:
            raise type(error)(error.what, error.where, error.got, f"{error.do} Then g{on}") from error
        except KeyboardInterrupt:
            raise TrainingStopped(f"G{on}") from None
        except Exception as error:
            # a compiled network fails at its first call, by an error of the compiler
            if not (self.settings.compile and type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))):
                raise
            got, do = str(error).strip().partition("\n")[0], "Leave it out, or install a C++ compiler."
            raise RunError("the network cannot be compiled here", "--compile", got, do) from error
