"""Training loop: update, validate, record, and write checkpoints."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import astuple
from typing import Any, TypedDict

import msgspec
import numpy as np
import torch
from torch import Tensor

from vaefit.cache.communicator import Communicator, any_rank

from ..errors import RunError, UserCodeError, VaefitError
from ..loader.augment import Augmentation
from ..loader.loader import Loader
from ..model.beta_vae import BetaVAE
from ..model.state import all_tensors
from ..monitor.collapse_monitor import CollapseMonitor
from ..monitor.warnings import TrainingWarning
from ..optim.train_step import Step
from ..recipe import Recipe
from .checkpoint import Checkpoint
from .interrupt import StopRequest, TrainingStopped
from .progress import BestValidation, Plan, Progress, RunRecorder, StepsRow, ValidationRow
from .random_streams import augmentation_generator, latent_noise, seed_torch
from .running_mean import Tally
from .validation import Grids, Validation, Validator

STORED = ("stale", "seconds", "warnings", "stopped", "finished")
"""Fields of `Progress` that a checkpoint holds under their names."""
ROW_EVERY = 50
"""Updates that a row of `steps.csv` averages."""

_log = logging.getLogger("vaefit")
OnUpdate = Callable[["Training"], None]


class _Numbers(TypedDict):
    """The numbers of a checkpoint."""

    monitor: dict[str, Any]
    row: dict[str, Any]
    since: dict[str, Any]
    best: tuple[int, int, float] | None
    stale: int
    seconds: float
    warnings: list[str]
    stopped: str | None
    finished: bool


class Training:
    """A training run: model, progress, and loop."""

    def __init__(
        self,
        step: Step,
        recipe: Recipe,
        plan: Plan,
        loader: Loader,
        validator: Validator,
        recorder: RunRecorder,
        seed: int,
        augment: Augmentation | None,
        ignore_index: int | None,
        ranks: Communicator | None = None,
    ) -> None:
        """Build the training; with `ranks`, that of this rank's rows of each batch: the models stay equal."""
        self.step, self.recipe, self.plan = step, recipe, plan
        self.progress = Progress()
        self.validation: Validation | None = None
        """The newest validation of this process."""
        self.newest: StepsRow | None = None
        self._loader, self._validator, self._recorder = loader, validator, recorder
        self._seed, self._augment, self._ranks = seed, augment, ranks
        classes = step.adapter.classes
        self._row, self._since = Tally.empty(classes), Tally.empty(classes)
        self._monitor = CollapseMonitor(classes, ignore_index=ignore_index, on_warning=self._add_warning)
        self._best_tensors: dict[str, Tensor] = {}
        self._clock = time.monotonic()
        self._saved = self._clock

    def run(self, stop: StopRequest, on_update: OnUpdate | None = None) -> None:
        """Train to the end of the plan, or until patience or divergence ends the run.

        Raises TrainingStopped, after a checkpoint, where a stop was requested.

        Args:
            on_update: called after every update, and after each validation.
        """
        if self.progress.finished:
            return
        try:
            self._run(stop, on_update or (lambda _: None))
        except UserCodeError as error:
            moment = error.at(f"at update {self.progress.step + 1}, rate {self.recipe.rate:g}")
            # the other ranks of a job go on, and wait for this one
            if not error.not_finite or self.progress.best is None or self._ranks is not None:
                raise moment from error.__cause__
            self.progress.diverged = moment.what

    def _run(self, stop: StopRequest, notify: OnUpdate) -> None:
        progress, plan = self.progress, self.plan
        if progress.best is None:
            self._validate()
            self._save()
            notify(self)
        while self._has_next():
            epoch, first = divmod(progress.step, plan.epoch)
            for grids in self._loader.epoch(epoch, first):
                self._check_stop(stop)
                self._update(grids)
                if progress.diverged is not None:
                    return
                self._finish_update(epoch + 1)
                notify(self)
                if not self._has_next():
                    break
        self._check_stop(stop)
        if progress.step % plan.validate_every and progress.stopped is None:
            self._validate()
            notify(self)
        progress.finished = True
        self._save()

    def best_validation(self) -> Validation:
        """Return the validation under the best weights, and leave the model with these weights."""
        best = self.progress.best
        assert best is not None  # the untrained model was validated
        if self.validation is not None and best.step == self.progress.step:
            return self.validation
        self._load(self._best_tensors)
        return self._validator.measure(self.recipe.beta_at(best.step))

    def checkpoint(self) -> Checkpoint:
        """Return the state that a resumed run needs."""
        progress = self.progress
        now = time.monotonic()
        progress.seconds += now - self._clock
        self._clock = now
        monitor = self._monitor.state_dict()
        tensors = {
            **_prefixed("model", all_tensors(self.step.model)),
            **_prefixed("optimiser", self.step.optimizer_state()),
            **_prefixed("monitor", {name: value for name, value in monitor.items() if isinstance(value, Tensor)}),
            "row.counts": torch.from_numpy(self._row.counts),
            "since.counts": torch.from_numpy(self._since.counts),
        }
        best = progress.best
        if best is not None and best.step != progress.step:
            tensors.update(_prefixed("best", self._best_tensors))
        numbers = {
            "monitor": {name: _plain(value) for name, value in monitor.items() if not isinstance(value, Tensor)},
            "row": self._row.numbers(),
            "since": self._since.numbers(),
            "best": None if best is None else astuple(best),
            **{name: getattr(progress, name) for name in STORED},
        }
        return Checkpoint(progress.step, tensors, numbers)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore a checkpoint of this run; RunError where it is of another model, or lacks a part of the state.

        The best weights of the checkpoint are written again: those in the folder may be of a later update, or missing.
        """
        try:
            self._restore(checkpoint, msgspec.convert(checkpoint.numbers, _Numbers))
        except VaefitError:
            raise
        except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
            do = "It was changed by hand: start the run again, with --overwrite."
            got = str(error).partition("\n")[0]
            raise RunError("the checkpoint does not hold the state of the run", "checkpoints", got, do) from error

    def _restore(self, checkpoint: Checkpoint, numbers: _Numbers) -> None:
        tensors, progress = checkpoint.tensors, self.progress
        model = _parts(tensors, "model")
        self._check(model)
        if numbers["best"] is not None:
            progress.best = BestValidation(*numbers["best"])
            self._best_tensors = _parts(tensors, "best") or model
            self._load(self._best_tensors)
            self._recorder.best(self.step.model, progress.best)
        self._load(model)
        self.step.load_state(_parts(tensors, "optimiser"))
        self._monitor.load_state_dict({**numbers["monitor"], **_parts(tensors, "monitor")})
        self._row = Tally(tensors["row.counts"].numpy().copy(), **numbers["row"])
        self._since = Tally(tensors["since.counts"].numpy().copy(), **numbers["since"])
        progress.step = checkpoint.step
        for name in STORED:
            setattr(progress, name, numbers[name])  # type: ignore[literal-required]
        self._clock = self._saved = time.monotonic()

    def _load(self, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in all_tensors(self.step.model).items():
                tensor.copy_(tensors[name])

    def _check(self, tensors: dict[str, Tensor]) -> None:
        """Raise RunError unless the tensors have the names and shapes of the model's."""
        here, there = (
            {name: tuple(t.shape) for name, t in found.items()} for found in (all_tensors(self.step.model), tensors)
        )
        name = next((name for name in {**here, **there} if here.get(name) != there.get(name)), None)
        if name is not None:
            got = f"{name} of shape {there.get(name, 'none')}, in the model {here.get(name, 'none')}"
            do = "Put the model back as it was, or start the run again, with --overwrite."
            raise RunError("the checkpoint is not of the model", "checkpoints", got, do)

    def _has_next(self) -> bool:
        return self.progress.step < self.plan.updates and self.progress.stopped is None

    def _update(self, grids: Grids) -> None:
        done, step, loader = self.progress.step, self.step, self._loader
        if self._augment is not None:
            rng = augmentation_generator(self._seed, done)
            grids = self._augment(grids, rng, loader.rows.start, loader.batch_size)
        seed_torch(self._seed, done, 0 if self._ranks is None else self._ranks.rank)
        labels = torch.from_numpy(grids.astype(np.int64)).to(step.parameters[0].device)
        losses = step.forward(step.adapter.inputs(labels, step.model), labels, self.recipe.beta_at(done), self._noise())
        loss = losses.total.item()
        norm = step.update(losses, self.recipe.lr_at(done)) if math.isfinite(loss) else math.nan
        self._monitor.update(losses.counts, losses.logits, labels, loss=loss)
        if not math.isfinite(norm):
            what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient is {norm}"
            self.progress.diverged = f"{what} at update {done + 1}"
            return
        self._row.add(losses, norm)
        self.progress.step += 1

    def _noise(self) -> Tensor | None:
        model, loader = self.step.model, self._loader
        if self.recipe.z != "sample" or not isinstance(model, BetaVAE):
            return None
        noise = latent_noise(self._seed, self.progress.step, (loader.batch_size, model.latent_dim))
        return noise[loader.rows].to(self.step.parameters[0].device)

    def _finish_update(self, epoch: int) -> None:
        done, plan = self.progress.step, self.plan
        due = done % plan.validate_every == 0
        if due or done % ROW_EVERY == 0 or done == plan.updates:
            self._write_row(epoch)
        if due:
            self._validate()
        if due or time.monotonic() - self._saved >= plan.checkpoint_seconds:
            self._save()

    def _write_row(self, epoch: int) -> None:
        average = self._row.average()
        if average is None:
            return
        last = self.progress.step - 1
        self.newest = StepsRow(last + 1, epoch, self.recipe.lr_at(last), self.recipe.beta_at(last), average)
        self._recorder.steps_row(self.newest)
        self._since.merge(self._row)
        self._row = Tally.empty(self.step.adapter.classes)

    def _validate(self) -> None:
        progress, recipe = self.progress, self.recipe
        done = progress.step
        self.validation = found = self._validator.measure(recipe.beta_at(done))
        epoch = -(-done // self.plan.epoch)
        last = max(done - 1, 0)
        lr = recipe.lr_at(last) if done else None
        row = ValidationRow(done, epoch, lr, recipe.beta_at(last), self._since.average(), found)
        self._recorder.validation_row(row)
        self._since = Tally.empty(self.step.adapter.classes)
        macro = found.accuracies.macro
        # the untrained model is the best only while there is no other
        if progress.best is None or progress.best.step == 0 or macro > progress.best.macro:
            progress.best, progress.stale = BestValidation(done, epoch, macro), 0
            tensors = all_tensors(self.step.model)
            self._best_tensors = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
            self._recorder.best(self.step.model, progress.best)
        else:
            progress.stale += 1
            patience = self.plan.patience
            if patience is not None and progress.stale >= patience and done < self.plan.updates:
                progress.stopped = f"macro accuracy was not better in {patience} validations"

    def _check_stop(self, stop: StopRequest) -> None:
        if self._ranks is not None:
            stop.requested = any_rank(self._ranks, stop.requested)  # a signal reaches each rank at a different update
        if stop.requested:
            self._save()
            if self._ranks is not None:
                # all ranks wait for the checkpoint: torchrun ends the others as soon as one ends
                any_rank(self._ranks, True)
            raise TrainingStopped

    def _save(self) -> None:
        self._recorder.checkpoint(self.checkpoint())
        self._saved = time.monotonic()

    def _add_warning(self, warning: TrainingWarning) -> None:
        self.progress.warnings.append(str(warning))
        _log.warning(str(warning))


def _prefixed(part: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{part}.{name}": tensor for name, tensor in tensors.items()}


def _parts(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
