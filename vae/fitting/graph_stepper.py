"""Stepper that makes a window of steps at a time as a CUDA graph, without reading the device in between.

The device runs ahead of the last record by up to a window. So each step first saves its parameters, and a run that ends
inside the window restores those of its last step: its records and its model are those of the eager stepper.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UserCodeError
from ..metrics.accuracy import Labels
from ..objective.objective import Losses, Measured
from ..optim.train_step import Step
from ..recipe import Recipe
from .cuda_graph import WINDOW, capture

NUMBERS = 4
"""Loss, focal loss, KL and the gradient's norm."""
MOST_SAVED = 1 << 28
"""Most bytes of parameters that a window saves; a larger model takes long enough a step to need no window."""


class Ring:
    """Buffers of a window on the device, one row a step: rates, betas, measured numbers and saved parameters."""

    def __init__(self, size: int, entries: int, parameters: tuple[Tensor, ...]) -> None:
        """`entries` is the number of confusion counts, C * C."""
        device, double = parameters[0].device, torch.float64
        self.row = torch.zeros(1, dtype=torch.int64, device=device)
        self.rates = torch.zeros(size, dtype=double, device=device)
        self.betas = torch.zeros(size, dtype=double, device=device)
        # float64 holds counts up to 2^53, so one transfer reads everything
        self.found = torch.zeros(size, NUMBERS + entries, dtype=double, device=device)
        total = sum(p.numel() for p in parameters)
        self.parameters = torch.zeros(size, total, dtype=parameters[0].dtype, device=device)

    def begin(self, rates: list[float], betas: list[float]) -> None:
        """Set the rates and betas of a window, and go to its first row."""
        self.row.zero_()
        self.rates[: len(rates)].copy_(torch.tensor(rates, dtype=torch.float64))
        self.betas[: len(betas)].copy_(torch.tensor(betas, dtype=torch.float64))

    def save(self, parameters: Tensor) -> None:
        """Save the parameters (P,) before this row's step."""
        self.parameters.index_copy_(0, self.row, parameters.unsqueeze(0))

    def write(self, losses: Losses, norm: Tensor) -> None:
        """Store the losses, confusion counts and gradient norm of this row's step."""
        assert losses.kl is not None  # only a BetaVAE runs here
        numbers = torch.stack([losses.total.detach(), losses.focal.detach(), losses.kl.detach(), norm]).double()
        found = torch.cat([numbers, losses.counts.reshape(-1).double()])
        self.found.index_copy_(0, self.row, found.unsqueeze(0))

    def next(self) -> None:
        """Go to the next row, from the last to the first: the warm-up may take more steps than a window has."""
        self.row.add_(1).remainder_(self.rates.numel())

    def now(self, schedule: Tensor) -> Tensor:
        """Return this row's entry of the rates or betas, a scalar."""
        return schedule.index_select(0, self.row).squeeze(0)


class GraphStepper:
    """Stepper for a BetaVAE on its whole batch with z = mu; each step replays a captured graph."""

    leaves_gradients = False
    raised: UserCodeError | None = None

    def __init__(self, step: Step, recipe: Recipe, inputs: Tensor, targets: Tensor, size: int = WINDOW) -> None:
        self._step, self._recipe, self._inputs, self._targets = step, recipe, inputs, targets
        bytes_a_step = sum(p.numel() * p.element_size() for p in step.parameters)
        self._size = max(1, min(size, MOST_SAVED // bytes_a_step))
        self._ring: Ring | None = None
        self._replays: dict[bool, Callable[[], None]] = {}
        self._first = 0
        self._found: NDArray[np.float64] = np.empty((0, NUMBERS))
        self._at: int | None = None
        """The row that was measured last; None where the model itself was measured."""
        self._ahead: Tensor | None = None
        """Parameters at the window's end, while the model holds those of an earlier step."""

    def measure(self, updates: int) -> Measured:
        """Measure the model after `updates` updates; the first call of a window makes all its steps."""
        if updates == self._recipe.iterations:
            self._go_ahead()
            self._at = None
            return self._step.forward(self._inputs, self._targets, self._recipe.beta_at(updates)).measured()
        if updates >= self._first + len(self._found):
            self._make_window(updates)
        self._at = updates - self._first
        row = self._found[self._at]
        loss, focal, kl, _ = row[:NUMBERS].tolist()
        classes = math.isqrt(len(row) - NUMBERS)
        return Measured(loss, focal, kl, row[NUMBERS:].astype(np.int64).reshape(classes, classes))

    def predictions(self) -> Labels:
        """Return the reconstruction (B, H, W) with z = mu of the model as it was last measured; a forward pass."""
        self.settle()
        with torch.no_grad():
            logits = self._step.forward(self._inputs, self._targets, 0.0).logits
        return logits.argmax(dim=1).cpu().numpy()

    def update(self, updates: int) -> tuple[float, float]:
        """Return the objective and the gradient norm of an update, which was made with its window."""
        loss, _, _, norm = self._found[updates - self._first, :NUMBERS].tolist()
        return loss, norm

    def settle(self) -> None:
        """Take the model back from the window's end to the step that was measured last."""
        if self._at is None or self._ring is None:
            return
        if self._ahead is None:
            self._ahead = self._flat()
        self._load(self._ring.parameters[self._at])

    def _make_window(self, updates: int) -> None:
        """Make the window's steps and read what they measured, in one transfer."""
        self._go_ahead()
        steps = range(updates, min(updates + self._size, self._recipe.iterations))
        betas = [self._recipe.beta_at(s) for s in steps]
        minimised = betas[0] > 0
        # with beta 0 the divergence has no gradient: a graph of its own
        same = next((i for i, beta in enumerate(betas) if (beta > 0) != minimised), len(betas))
        if self._ring is None:
            self._ring = Ring(self._size, self._step.objective.weight.numel() ** 2, self._step.parameters)
        if minimised not in self._replays:
            self._replays[minimised] = self._capture(self._ring, minimised)
        self._ring.begin([self._recipe.lr_at(s) for s in steps[:same]], betas[:same])
        for _ in range(same):
            self._replays[minimised]()
        self._first, self._found = updates, self._ring.found[:same].cpu().numpy()

    def _capture(self, ring: Ring, minimised: bool) -> Callable[[], None]:
        def state() -> list[Tensor]:
            return [*self._step.state(), ring.row]

        replay = capture(partial(self._body, ring, minimised), state, self._targets.device)
        for parameter in self._step.parameters:
            parameter.grad = None  # it is in the graph's memory, which is freed with the run
        return replay

    def _body(self, ring: Ring, minimised: bool) -> None:
        """Make one step; every tensor that it reads or writes keeps its address."""
        ring.save(self._flat())
        losses = self._step.forward(self._inputs, self._targets, ring.now(ring.betas) if minimised else 0.0)
        norm = self._step.differentiate(losses)
        ring.write(losses, norm)
        self._step.apply(norm, ring.now(ring.rates))
        ring.next()

    def _flat(self) -> Tensor:
        return torch.cat([p.detach().reshape(-1) for p in self._step.parameters])

    def _load(self, flat: Tensor) -> None:
        parameters = self._step.parameters
        with torch.no_grad():
            for parameter, values in zip(parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True):
                parameter.copy_(values.view(parameter.shape))

    def _go_ahead(self) -> None:
        """Restore the parameters at the window's end, where the model holds those of an earlier step."""
        if self._ahead is not None:
            self._load(self._ahead)
            self._ahead = None
