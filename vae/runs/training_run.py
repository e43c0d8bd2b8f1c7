"""Normal training, as the command runs it: counts, weights, split, model, updates, run folder."""

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
from torch import Tensor, nn

from vaefit.cache.communicator import from_rank_zero
from vaefit.cache.dataset_counts import Progress as Counting
from vaefit.cache.errors import SettingError
from vaefit.kernels import Backend

from ..data.batch import check_labels
from ..environment.device import choose_device, cpu_threads, fitting_memory, preferred_backend, reproducible
from ..environment.seeds import seeded
from ..errors import RunError
from ..fitting.eager_stepper import EagerStepper
from ..fitting.lr_range_test import range_test
from ..loader.loader import Loader, open_loader
from ..loader.split import ROLES, Role
from ..model.factory import build_network
from ..model.inspection import ModelInspection, described_model
from ..model.user_model import LoadedModel
from ..objective.agreement import Agreement
from ..objective.objective import Objective, check_objective
from ..objective.preflight import preflight
from ..optim.train_step import Step
from ..recipe import Recipe
from ..results.overfit_summary import DatasetSummary, WeightsSummary
from ..results.training_summary import TrainedRun, TrainingSetup, TrainSummary
from ..run_folder.training_folder import NullRecorder, TrainFolder
from ..training.checkpoint import Checkpoint
from ..training.interrupt import TrainingStopped, stop_request
from ..training.loop import Training
from ..training.prepare import PreparedTraining, recipe_for
from ..training.progress import ChosenRate, Plan, RunRecorder
from ..training.settings import TrainSettings, from_anywhere
from ..training.validation import Validator
from .resume import ResumableRun, locked

if TYPE_CHECKING:
    from ..distributed.process_group import ProcessGroup

_log = logging.getLogger("vaefit")
_DTYPES = {"float32": None, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class TrainWatcher:
    """What a caller hears while a run trains; every call is optional."""

    counting: Counting | None = None
    started: Callable[[TrainingSetup], None] | None = None
    """Once, when nothing stands in the way of the first update."""
    update: Callable[[Training], None] | None = None
    """After every update and every validation."""


def run_training(
    settings: TrainSettings, watcher: TrainWatcher | None = None, job: ProcessGroup | None = None
) -> TrainSummary:
    """Train, and leave a run folder behind.

    The ranks of a `job` all call this with the same settings, share each batch, and are given the same result; rank 0
    writes.

    Raises SettingError for settings that are wrong by themselves, DataError and RunError where it cannot run, and
    TrainingStopped, a KeyboardInterrupt, where it was asked to stop.
    """
    claimed = TrainFolder.claim(settings.out, settings.overwrite) if job is None or job.rank == 0 else None
    try:
        folder = from_rank_zero(job, lambda: claimed)
        assert folder is not None  # rank 0 has claimed it
        with _writing(folder.path, job):
            return _Run(from_anywhere(settings), folder, watcher or TrainWatcher(), None, job).whole()
    except BaseException:
        if claimed is not None:
            claimed.release()
        raise


def resume_training(
    folder: Path,
    changed: Callable[[TrainSettings], TrainSettings],
    watcher: TrainWatcher | None = None,
    job: ProcessGroup | None = None,
) -> TrainSummary:
    """Go on with the run in a folder from its newest whole checkpoint; the result is that of a run never stopped.

    Args:
        changed: from the settings of the run to those to go on with; SettingError where one may not change.
        job: as for `run_train`; another number of ranks is right where the grids are in memory, and refused else.

    Raises as `run_train`, and RunError where the folder holds no such run, the data or the weights are others than
    when it began, or another process is training it.
    """
    stored = from_rank_zero(job, lambda: ResumableRun.read(folder))
    stored.check_ranks(1 if job is None else job.size)
    with _writing(folder, job):
        settings = changed(stored.settings)
        return _Run(settings, TrainFolder(folder.absolute()), watcher or TrainWatcher(), stored, job).whole()


def _writing(folder: Path, job: ProcessGroup | None) -> AbstractContextManager[None]:
    """Keep other processes from the folder; of a job, rank 0 does."""
    return locked(folder) if job is None or job.rank == 0 else nullcontext()


@dataclass
class _Run:
    """One call of the two above."""

    settings: TrainSettings
    folder: TrainFolder
    watcher: TrainWatcher
    stored: ResumableRun | None
    job: ProcessGroup | None

    def whole(self) -> TrainSummary:
        """From counting to the result."""
        settings = self.settings
        device = choose_device(settings.device)
        if self.job is not None:
            self.job.check_device(device)
        backend, choice = preferred_backend(settings.backend, device)
        loaded = None if settings.model is None else settings.model.load()
        prepared = PreparedTraining.from_settings(settings, device, choice, self.watcher.counting, self.job)
        if self.stored is not None:
            self.stored.check(prepared)
        _, height, width = prepared.dataset.shape
        grids = -(-settings.batch_size // (1 if self.job is None else self.job.size))
        threads = settings.threads if self.stored is None else self.stored.began.threads
        what = f"{grids} grids of {height} x {width}, {prepared.dataset.classes} classes"
        with ExitStack() as stack:
            stack.enter_context(cpu_threads(threads, grids * height * width))
            stack.enter_context(reproducible())
            stack.enter_context(seeded(settings.seed, device))
            train = stack.enter_context(self._loader(prepared, "train"))
            val = stack.enter_context(self._loader(prepared, "val"))
            if self.job is not None and val.size < self.job.size:
                what, got = "there is no grid for each rank to validate on", f"{val.size} over {self.job.size} ranks"
                raise SettingError(what, "--val-share", got, "Raise it, or start fewer.")
            stack.enter_context(fitting_memory(what))
            return self._train(prepared, loaded, backend, train, val)

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

    def _train(
        self, prepared: PreparedTraining, loaded: LoadedModel | None, backend: Backend, train: Loader, val: Loader
    ) -> TrainSummary:
        settings, device, classes = self.settings, prepared.device, prepared.dataset.classes
        ignored, updates = settings.ignore_index, settings.epochs * train.steps
        recipe = recipe_for(settings, updates, train.steps)
        _, height, width = prepared.dataset.shape
        model = build_network(loaded, classes, height, width, settings.latent_dim, settings.seed, device)
        first = self._first_batch(train)
        check_labels(first, classes, ignored)
        labels = torch.from_numpy(first).to(device)
        look = ModelInspection.from_model(model, labels, recipe, settings.seed, classes, None, ignored)
        objective = Objective.build(prepared.weights.values, recipe, ignored, backend, device)
        check_objective(objective, labels)
        agreement = preflight(objective, look.logits, labels)
        rate = from_rank_zero(self.job, lambda: self._rate(recipe, model, look, objective, labels))
        recipe = replace(recipe, lr=rate.lr)
        if settings.compile:
            model.compile()
        setup = _setup(settings, prepared, model, look, train, updates, agreement, rate, self.job)
        if self.watcher.started is not None:
            self.watcher.started(setup)
        step = Step.build(model, look.adapter, objective, recipe, _DTYPES[settings.precision])
        own = train.rows.stop - train.rows.start
        batches = -(-val.size // settings.batch_size)
        validator = Validator(step, lambda: val.in_order(own), val.size, ignored, batches, self.job)
        every = settings.validate_every or train.steps
        plan = Plan(updates, train.steps, every, settings.patience, settings.checkpoint_every)
        checkpoint = from_rank_zero(self.job, lambda: self._begun(prepared, train, rate))
        if self.job is not None:
            from ..distributed.ddp_step import DistributedStep

            step = DistributedStep.from_step(self.job, step, recipe)
        with self._recording(classes, checkpoint) as recorder:
            training = Training(
                step, recipe, plan, train, validator, recorder, settings.seed, prepared.augment, ignored, self.job
            )
            if checkpoint is not None:
                training.restore(checkpoint)
            with self._resumable(), stop_request(insisting=self.job is None) as stop:
                training.run(stop, self.watcher.update)
        with self._resumable():
            trained = TrainedRun(prepared, setup, training.progress, training.best_validation())
            return from_rank_zero(self.job, lambda: self.folder.finish(trained, ignored))

    def _first_batch(self, train: Loader) -> NDArray[np.int64]:
        """(B, H, W), what the network is initialised and looked at with: those of all ranks."""
        own = next(iter(train.epoch(0))).astype(np.int64)
        if self.job is None:
            return own
        return np.concatenate(self.job.share(self.job.gather(own)))

    def _recording(self, classes: int, checkpoint: Checkpoint | None) -> AbstractContextManager[RunRecorder]:
        if self.job is None or self.job.rank == 0:
            return self.folder.recording(classes, checkpoint)
        return nullcontext(NullRecorder())

    def _rate(
        self, recipe: Recipe, model: nn.Module, look: ModelInspection, objective: Objective, labels: Tensor
    ) -> ChosenRate:
        """The learning rate; found on the first batch where it was left open, once and for all resumptions."""
        if self.stored is not None:
            return self.stored.began.rate
        if recipe.lr != "auto":
            return ChosenRate(recipe.rate, None)
        generator, seed = torch.Generator(), self.settings.seed

        def reseed() -> None:
            torch.manual_seed(seed)
            generator.manual_seed(seed)

        def motion(of: Recipe) -> EagerStepper:
            return EagerStepper(Step.build(model, look.adapter, objective, of), of, look.inputs, labels, generator)

        tested = range_test(model, recipe, motion, reseed)
        return ChosenRate(tested.rate, str(tested))

    def _begun(self, prepared: PreparedTraining, train: Loader, rate: ChosenRate) -> Checkpoint | None:
        """The checkpoint to go on from; None for a run that begins."""
        if self.stored is not None:
            self.folder.remove_unfinished()
            checkpoint = self.folder.checkpoints.newest()
            if checkpoint is not None:
                return checkpoint
            self.stored.check_unbegun()
            _log.warning("the run has no checkpoint yet: it begins anew")
        self.folder.begin(self.settings, prepared, train.mode, rate, self.job)
        return None

    @contextmanager
    def _resumable(self) -> Iterator[None]:
        """Add to what ends training how to go on."""
        command = "vaefit-cli" if self.job is None else "torchrun ... -m vaefit.cli"
        on = f"o on with `{command} train --resume {self.folder.path}`."
        try:
            yield
        except RunError as error:
            raise type(error)(error.what, error.where, error.got, f"{error.do} Then g{on}") from error
        except KeyboardInterrupt:
            raise TrainingStopped(f"G{on}") from None
        except Exception as error:
            # what compiles fails at the first call, in whatever way the compiler does
            if not (self.settings.compile and type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))):
                raise
            got, do = str(error).strip().partition("\n")[0], "Leave it out, or install a C++ compiler."
            raise RunError("the network cannot be compiled here", "--compile", got, do) from error


def _setup(
    settings: TrainSettings,
    prepared: PreparedTraining,
    model: nn.Module,
    look: ModelInspection,
    train: Loader,
    updates: int,
    agreement: Agreement | None,
    rate: ChosenRate,
    job: ProcessGroup | None,
) -> TrainingSetup:
    return TrainingSetup(
        dataset=DatasetSummary.from_counts(prepared.dataset),
        weights=WeightsSummary.from_weights(prepared.weights),
        split={role: prepared.split.size(role) for role in ROLES},
        split_reason=prepared.split_words,
        backend=prepared.backend.name,
        backend_reason=prepared.backend.reason,
        device=str(prepared.device),
        model=described_model(model),
        adapter=str(look.adapter),
        loader=train.how,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        updates=updates,
        updates_an_epoch=train.steps,
        preflight=agreement,
        lr=rate.lr,
        lr_reason=rate.reason,
        ranks=1 if job is None else job.size,
    )
