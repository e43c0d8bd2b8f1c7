"""The loop over the steps of one run: measure, stop or update."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaefit.kernels import choose_backend

from ..errors import RunError
from ..metrics.accuracy import Accuracies, BaselineShares, Labels, retrieval
from ..metrics.verdict import Evidence, memorised
from ..objective.objective import NO_LABEL
from ..optim.train_step import Step
from ..recipe import Recipe
from .frames import FrameRecorder
from .result import Record
from .stepper import Stepper


class Fit:
    """The loop over the steps of one run."""

    def __init__(
        self, motion: Stepper, step: Step, recipe: Recipe, inputs: Tensor, targets: Tensor, shares: BaselineShares
    ) -> None:
        self.motion, self.step, self.recipe = motion, step, recipe
        self.inputs, self.targets, self.shares = inputs, targets, shares
        self.camera = FrameRecorder(targets.cpu().numpy())
        self.updates = 0
        self.diverged: str | None = None

    def records(self) -> Iterator[Record]:
        """Measure, then update, until the recipe's end; the last record has no update.

        Raises RunError where the confusion counts do not hold every cell that is not ignored.
        """
        while True:
            measured = self.motion.measure(self.updates)
            if math.isfinite(measured.loss):
                self._check_cells(measured.counts)
            if self.camera.wants(self.updates):
                self.camera.take(self.updates, self.motion.predictions())
            record = Record(
                step=self.updates,
                loss=measured.loss,
                focal=measured.focal,
                kl=measured.kl,
                accuracies=Accuracies.from_confusion(measured.counts),
                beta=self.recipe.beta_at(self.updates),
            )
            if not math.isfinite(record.loss):
                self.diverged = f"the loss is {record.loss} after {self.updates} updates"
            if self.diverged or self.updates == self.recipe.iterations or self._stops(record.accuracies):
                self.motion.settle()
                yield record
                return
            train_loss, norm = self.motion.update(self.updates)
            yield replace(record, lr=self.recipe.lr_at(self.updates), train_loss=train_loss, grad_norm=norm)
            if not math.isfinite(norm):
                what = "gradient's norm" if math.isfinite(train_loss) else "loss"
                value = norm if math.isfinite(train_loss) else train_loss
                self.diverged = f"the {what} is {value} after {self.updates} updates"
                self.motion.settle()
                return
            self.updates += 1

    def predictions(self) -> Labels:
        """The reconstruction (B, H, W) of the fixed batch with z = mu by the model as it is now."""
        model = self.step.model
        model.eval()
        with torch.no_grad():
            logits = self.step.adapter.outputs(model, self.inputs)[0]
        return logits.argmax(dim=1).cpu().numpy()

    def _check_cells(self, counts: NDArray[np.int64]) -> None:
        """On a GPU a label outside the classes stops no kernel: it is missed here."""
        counted = int(counts.sum())
        if counted != self.shares.cells:
            raise RunError(
                f"the confusion counts hold {counted:,} cells after {self.updates} updates, but "
                f"{self.shares.cells:,} cells of the batch are not ignored",
                f"focal loss {choose_backend(self.step.objective.backend, self.targets.device)}",
                do="A label lies outside the classes, or the kernel is broken: try --backend eager and --device cpu.",
            )

    def _stops(self, accuracies: Accuracies) -> bool:
        if self.recipe.stop_when == "exact":
            return accuracies.exact
        if self.recipe.stop_when == "never" or accuracies.worst < self.recipe.target:
            return False
        self.motion.settle()
        predictions = self.predictions()
        self.step.model.train()
        targets = self.targets.cpu().numpy()
        ignored = self.step.objective.ignore_index
        found = retrieval(predictions, targets, None if ignored == NO_LABEL else ignored)
        skill = self.shares.skill(accuracies.pixel)
        return memorised(Evidence(accuracies, skill, found, targets.shape[0]), self.recipe.target)
