"""Loop over the steps of one run: measure, then stop or update."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vaefit.kernels import choose_backend

from ..errors import RunError, UserCodeError, user_traceback
from ..metrics.accuracy import Accuracies, BaselineShares, Labels, retrieval
from ..metrics.verdict import Evidence, memorised
from ..model.gradient_reach import GradientReach
from ..objective.objective import NO_LABEL
from ..optim.train_step import Step
from ..recipe import Recipe
from .frames import FrameRecorder
from .result import Record
from .stepper import Stepper

_log = logging.getLogger("vaefit")


class Fit:
    """Loop over the steps of one run; `targets` (B, H, W) is the fixed batch, `shares` its baselines.

    `stop` is called before each update; where it returns True, the run ends as one that was interrupted.
    """

    def __init__(
        self,
        stepper: Stepper,
        step: Step,
        recipe: Recipe,
        targets: Tensor,
        shares: BaselineShares,
        own_inputs: bool,
        stop: Callable[[], bool],
    ) -> None:
        self.stepper, self.step, self.recipe, self.shares, self.own_inputs = stepper, step, recipe, shares, own_inputs
        self.targets = targets.cpu().numpy()
        self.device = targets.device
        self.frames = FrameRecorder(self.targets)
        self.reach = GradientReach(step.model)
        self.stop, self.interrupted = stop, False
        self.updates = 0
        self.diverged: str | None = None

    def records(self) -> Iterator[Record]:
        """Measure and update until the recipe's end; the last record has no update.

        Raises RunError where the confusion counts do not hold every cell that is not ignored, and UserCodeError where
        the model raises, other than because of values that are not finite.
        """
        try:
            yield from self._records()
        except UserCodeError as error:
            raise error.at(self._moment()) from error.__cause__

    def _records(self) -> Iterator[Record]:
        while True:
            measured = self.stepper.measure(self.updates)
            if math.isfinite(measured.loss):
                self._check_cells(measured.counts)
            if self.frames.is_due(self.updates):
                self.frames.add(self.updates, self.stepper.predictions())
            record = Record(
                step=self.updates,
                loss=measured.loss,
                focal=measured.focal,
                kl=measured.kl,
                accuracies=Accuracies.from_confusion(measured.counts),
                beta=self.recipe.beta_at(self.updates),
            )
            if not math.isfinite(record.loss):
                self.diverged = self._raised() or f"the loss is {record.loss} after {self.updates} updates"
            ended = self.diverged or self.updates == self.recipe.iterations or self._stops(record.accuracies)
            self.interrupted = not ended and self.stop()
            if ended or self.interrupted:
                self.stepper.settle()
                yield record
                return
            train_loss, norm = self.stepper.update(self.updates)
            if self.stepper.leaves_gradients and math.isfinite(train_loss):
                self.reach.observe()
            yield replace(record, lr=self.recipe.lr_at(self.updates), train_loss=train_loss, grad_norm=norm)
            if not math.isfinite(norm):
                what, value = ("gradient's norm", norm) if math.isfinite(train_loss) else ("loss", train_loss)
                self.diverged = self._raised() or f"the {what} is {value} after {self.updates} updates"
                self.stepper.settle()
                return
            self.updates += 1

    def final_predictions(self) -> Labels:
        """Return the final reconstruction (B, H, W) with z = mu; the model is left in evaluation mode."""
        predictions = self.stepper.predictions()
        self.step.model.eval()
        self.frames.add(self.updates, predictions)
        return predictions

    def _moment(self) -> str:
        """Return the update that the run is at, and its rate."""
        return f"at update {min(self.updates + 1, self.recipe.iterations)}, rate {self.recipe.rate:g}"

    def _raised(self) -> str | None:
        """Return the exception of the model, with its moment, that ended the run; None where there was none."""
        error = self.stepper.raised
        if error is None:
            return None
        for line in user_traceback(error).splitlines():
            _log.debug(line)
        return error.at(self._moment()).what

    def _check_cells(self, counts: NDArray[np.int64]) -> None:
        """Check that every cell was counted: on a GPU, the kernels skip a label outside the classes."""
        counted = int(counts.sum())
        if counted != self.shares.cells:
            raise RunError(
                f"the confusion counts hold {counted:,} cells after {self.updates} updates, but "
                f"{self.shares.cells:,} cells of the batch are not ignored",
                f"focal loss {choose_backend(self.step.objective.backend, self.device)}",
                do="A label is outside the classes, or the kernel is wrong: try --backend eager and --device cpu.",
            )

    def _stops(self, accuracies: Accuracies) -> bool:
        if self.recipe.stop_when == "exact":
            return accuracies.exact
        if self.recipe.stop_when == "never" or accuracies.worst < self.recipe.target:
            return False
        ignored = self.step.objective.ignore_index
        found = retrieval(self.stepper.predictions(), self.targets, None if ignored == NO_LABEL else ignored)
        skill = self.shares.skill(accuracies.pixel)
        return memorised(Evidence(accuracies, skill, found, own_inputs=self.own_inputs), self.recipe.target)
