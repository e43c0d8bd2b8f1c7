"""Validation: measure a model on all grids of a split, reconstructed with z = mu."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vaefit.cache.communicator import Communicator, own_portion
from vaefit.cache.errors import DataError

from ..metrics.accuracy import Accuracies, BaselineShares, Labels, kept_cells, position_counts
from ..model.state import evaluating
from ..objective.objective import Losses, Objective, divisors, kl_per_dimension
from ..optim.train_step import Step

Grids = NDArray[np.integer]
ACTIVE = 0.01
"""A latent dimension is active where its mean varies by more than this over the grids (Burda et al. 2016, "Importance
weighted autoencoders", section 5.2)."""
SHOWN = 32
"""Grids, evenly spread over the split, whose reconstructions are kept for the pictures."""


@dataclass(frozen=True)
class Validation:
    """Measurements of a model on every grid of a split."""

    grids: int
    loss: float
    focal: float
    kl: float | None
    """Nats a grid; None, like the next two fields, where the model returns no mu and logvar."""
    kl_dimensions: tuple[float, ...] | None
    """Nats a grid of each latent dimension."""
    latent_variances: tuple[float, ...] | None
    """Variance of mu over the grids, for each latent dimension; above `ACTIVE` the dimension is active."""
    accuracies: Accuracies
    confusion: NDArray[np.int64]
    """(C, C), row = target."""
    shares: BaselineShares
    skill: float | None
    shown: tuple[int, ...]
    """Indices within the split of the grids in `targets` and `predictions`."""
    targets: Labels
    """(n, H, W)."""
    predictions: Labels
    """(n, H, W), the reconstructions."""

    @property
    def active(self) -> tuple[bool, ...] | None:
        """True for each latent dimension that is active."""
        if self.latent_variances is None:
            return None
        return tuple(variance > ACTIVE for variance in self.latent_variances)

    @property
    def active_dimensions(self) -> int | None:
        """Number of active latent dimensions."""
        return None if self.active is None else sum(self.active)


class Validator:
    """Measures a model on one split, the same split each time."""

    def __init__(
        self,
        step: Step,
        split: Callable[[], Iterator[Grids]],
        size: int,
        ignore_index: int | None,
        batches: int | None = None,
        ranks: Communicator | None = None,
    ) -> None:
        """Set up the validation of one split.

        Args:
            split: returns the grids of this rank, batch by batch and always in the same order.
            size: number of grids over all ranks.
            batches: number of batches over all ranks; None counts those of this rank.
            ranks: ranks that measure together, each at least one grid; every rank returns the same result.
        """
        self._step, self._split, self._size, self._ignore_index = step, split, size, ignore_index
        self._batches, self._ranks, self._mine = batches, ranks, own_portion(size, ranks)
        self._shares: BaselineShares | None = None

    def measure(self, beta: float) -> Validation:
        """Reconstruct every grid with z = mu; DataError where every cell is ignored, or the data cannot be read."""
        step, classes = self._step, self._step.adapter.classes
        device = step.parameters[0].device
        if self._ranks is not None:
            _share_buffers(step.model, self._ranks)
        sums, shown = _Sums(classes, step.objective), _Shown(self._size, self._mine.start)
        held: NDArray[np.int64] | None = None
        with torch.no_grad(), evaluating(step.model):
            for grids in self._split():
                cells = grids.astype(np.int64)
                labels = torch.from_numpy(cells).to(device)
                losses = step.forward(step.adapter.inputs(labels, step.model), labels, beta)
                sums.add(losses, cells.shape[0])
                shown.add(cells, losses.logits)
                if self._shares is None:
                    here = position_counts(cells, kept_cells(cells, self._ignore_index), classes)
                    held = here if held is None else held + here
        if self._ranks is not None:
            sums.merge_ranks(self._ranks)
            shown.merge_ranks(self._ranks)
            held = None if held is None else self._ranks.add(held)
        if held is not None:
            if not held.any():
                raise DataError("every cell of the split is ignored", got=f"--ignore-index {self._ignore_index}")
            self._shares = BaselineShares.from_position_counts(held)
        assert self._shares is not None  # a split has at least one grid
        return sums.validation(self._shares, shown, beta, self._batches)


class _Shown:
    """Reconstructions that are kept for the pictures."""

    def __init__(self, size: int, first: int) -> None:
        """Choose among `size` grids; the first grid that is added has the index `first`."""
        self.numbers = [place * size // SHOWN for place in range(SHOWN)] if size > SHOWN else list(range(size))
        self._first = first
        self.targets: list[Labels] = []
        self.predictions: list[Labels] = []

    def add(self, cells: Labels, logits: Tensor) -> None:
        rows = [n - self._first for n in self.numbers if 0 <= n - self._first < len(cells)]
        self._first += len(cells)
        if rows:
            self.targets.append(cells[rows])
            self.predictions.append(logits[rows].argmax(dim=1).cpu().numpy())

    def merge_ranks(self, ranks: Communicator) -> None:
        """Add the reconstructions of the other ranks, whose grids follow one another in the split."""
        kept = ranks.share(ranks.gather((self.targets, self.predictions)))
        self.targets, self.predictions = (list(chain(*parts)) for parts in zip(*kept, strict=True))


class _Sums:
    """Sums over the batches of a split; means are taken once, at the end."""

    def __init__(self, classes: int, objective: Objective) -> None:
        self._objective = objective
        self._counts = np.zeros((classes, classes), np.int64)
        self._focal, self._grids, self._batches = 0.0, 0, 0
        self._latent: NDArray[np.float64] | None = None
        """(3, latent): sums over the grids of KL, mu and mu squared."""

    def add(self, losses: Losses, grids: int) -> None:
        counts = losses.counts.cpu().numpy()
        self._focal += losses.focal.item() * divisors(grids, int(counts.sum()))[self._objective.reduction]
        self._counts += counts
        self._grids += grids
        self._batches += 1
        if losses.mu is not None and losses.logvar is not None:
            mu = losses.mu.double().flatten(1)
            each = kl_per_dimension(mu, losses.logvar.double().flatten(1))
            rows = torch.stack([each.sum(0), mu.sum(0), mu.square().sum(0)]).cpu().numpy()
            self._latent = rows if self._latent is None else self._latent + rows

    def merge_ranks(self, ranks: Communicator) -> None:
        """Add the sums of the other ranks, each of which has added at least one batch."""
        self._grids = int(ranks.add(np.array([self._grids], np.int64))[0])
        self._focal = float(ranks.add(np.array([self._focal]))[0])
        self._counts = ranks.add(self._counts)
        if self._latent is not None:
            self._latent = ranks.add(self._latent)

    def validation(self, shares: BaselineShares, shown: _Shown, beta: float, batches: int | None) -> Validation:
        """Return the validation; with reduction `sum`, losses are means over `batches`, or over the added batches."""
        accuracies = Accuracies.from_confusion(self._counts)
        reduction, number = self._objective.reduction, batches or self._batches
        cells = int(self._counts.sum())
        focal = self._focal / (number if reduction == "sum" else divisors(self._grids, cells)[reduction])
        dimensions = variances = None
        loss = focal
        if self._latent is not None:
            divergence, mean, square = self._latent / self._grids
            dimensions, variances = tuple(divergence.tolist()), tuple((square - mean**2).tolist())
            if beta > 0:
                cost = np.maximum(divergence, self._objective.free_bits).sum()
                loss += beta * float(cost) * (self._grids / number if reduction == "sum" else 1)
        return Validation(
            grids=self._grids,
            loss=loss,
            focal=focal,
            kl=None if dimensions is None else math.fsum(dimensions),
            kl_dimensions=dimensions,
            latent_variances=variances,
            accuracies=accuracies,
            confusion=self._counts,
            shares=shares,
            skill=shares.skill(accuracies.pixel),
            shown=tuple(shown.numbers),
            targets=np.concatenate(shown.targets),
            predictions=np.concatenate(shown.predictions),
        )


def _share_buffers(model: nn.Module, ranks: Communicator) -> None:
    """Give every rank the buffers of rank 0: running means differ between ranks, and rank 0 writes the weights."""
    buffers = list(model.buffers())
    if buffers:
        of_first = ranks.share([buffer.cpu() for buffer in buffers])
        for buffer, other in zip(buffers, of_first, strict=True):
            buffer.copy_(other)
