"""The loop over the steps of one run: measure, stop or update."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from .adapter import outputs
from .model import BetaVAE
from .objective import NO_LABEL, Losses
from .recipe import Recipe
from .result import Record
from .signals import Accuracies, Labels, Shares, retrieval
from .step import Step
from .verdict import Evidence, memorised

REPEATS = 50
"""A resampled batch is drawn from this many shuffled copies of its grids."""


class Fit:
    """The loop over the steps of one run."""

    def __init__(
        self, step: Step, recipe: Recipe, inputs: Tensor, targets: Tensor, shares: Shares, generator: torch.Generator
    ) -> None:
        self.step, self.recipe, self.inputs, self.targets, self.shares = step, recipe, inputs, targets, shares
        self.generator = generator
        self.updates = 0
        self.diverged: str | None = None
        self._order = torch.empty(0, dtype=torch.int64)
        # where a step trains on just what is measured, one forward pass serves both; a foreign model may hold dropout
        self._shared = isinstance(step.model, BetaVAE) and not recipe.resample and recipe.z == "mu"

    def records(self) -> Iterator[Record]:
        """Measure, then update, until the recipe's end; the last record has no update."""
        while True:
            beta = self.recipe.beta_at(self.updates)
            measured = self._measure(beta)
            record = Record(
                step=self.updates,
                loss=measured.total.item(),
                focal=measured.focal.item(),
                kl=None if measured.kl is None else measured.kl.item(),
                accuracies=Accuracies.of(measured.counts.cpu().numpy()),
                beta=beta,
            )
            if not math.isfinite(record.loss):
                self.diverged = f"the loss is {record.loss} after {self.updates} updates"
            if self.diverged or self.updates == self.recipe.iterations or self._stops(record.accuracies):
                yield record
                return
            lr = self.recipe.lr_at(self.updates)
            losses = measured if self._shared else self._train_forward(beta)
            train_loss = losses.total.item()
            norm = self.step.update(losses, lr) if math.isfinite(train_loss) else math.nan
            yield replace(record, lr=lr, train_loss=train_loss, grad_norm=norm)
            if not math.isfinite(norm):
                what = "gradient's norm" if math.isfinite(train_loss) else "loss"
                value = norm if math.isfinite(train_loss) else train_loss
                self.diverged = f"the {what} is {value} after {self.updates} updates"
                return
            self.updates += 1

    def predictions(self) -> Labels:
        """The reconstruction (B, H, W) of the fixed batch with z = mu by the model as it is now."""
        model = self.step.model
        model.eval()
        with torch.no_grad():
            logits = outputs(model, self.inputs, None)[0]
        return logits.argmax(dim=1).cpu().numpy()

    def _measure(self, beta: float) -> Losses:
        if self._shared:
            return self.step.forward(self.inputs, self.targets, beta)
        self.step.model.eval()
        with torch.no_grad():
            measured = self.step.forward(self.inputs, self.targets, beta)
        self.step.model.train()
        return measured

    def _train_forward(self, beta: float) -> Losses:
        inputs, targets = self.inputs, self.targets
        if self.recipe.resample:
            rows = self._draw().to(targets.device)
            inputs, targets = inputs[rows], targets[rows]
        noise = None
        if self.recipe.z == "sample" and isinstance(self.step.model, BetaVAE):
            shape = (targets.shape[0], self.step.model.latent_dim)
            noise = torch.randn(shape, generator=self.generator).to(targets.device)
        return self.step.forward(inputs, targets, beta, noise)

    def _draw(self) -> Tensor:
        """The rows of the next B grids from the shuffled copies, which are shuffled anew when they run out."""
        size = self.targets.shape[0]
        if self._order.numel() < size:
            self._order = torch.randperm(REPEATS * size, generator=self.generator) % size
        rows, self._order = self._order[:size], self._order[size:]
        return rows

    def _stops(self, accuracies: Accuracies) -> bool:
        if self.recipe.stop_when == "exact":
            return accuracies.exact
        if self.recipe.stop_when == "never" or accuracies.worst < self.recipe.target:
            return False
        predictions = self.predictions()
        self.step.model.train()
        targets = self.targets.cpu().numpy()
        ignored = self.step.objective.ignore_index
        found = retrieval(predictions, targets, None if ignored == NO_LABEL else ignored)
        skill = self.shares.skill(accuracies.pixel)
        return memorised(Evidence(accuracies, skill, found, targets.shape[0]), self.recipe.target)
