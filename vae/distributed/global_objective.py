"""Objective of a batch that is spread over several ranks; its value is that of one process with the whole batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..objective.objective import Losses, Objective, kl_per_dimension
from ..recipe import FitReduction
from .process_group import ProcessGroup


class _ReplaceValue(torch.autograd.Function):
    """Number with the value of `value` and the gradient of `share`, so that all ranks see the loss of the batch."""

    @staticmethod
    def forward(ctx: Any, share: Tensor, value: Tensor) -> Tensor:
        """Return `value`."""
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Pass the gradient to `share`."""
        return gradient, None


@dataclass(frozen=True)
class GlobalObjective:
    """An `Objective` over the rows of one batch on all ranks of a job.

    The kernel gives each rank the sum of the loss over its own cells, and the confusion counts. Sums, counts and
    numbers of grids are added over the ranks before any division, so that a mean is that of the whole batch for any
    distribution of its cells, and of its ignored cells, over the ranks.
    """

    own: Objective
    """Objective of the rank's own rows, with reduction `sum`."""
    reduction: FitReduction
    """Reduction over the whole batch."""
    job: ProcessGroup

    @classmethod
    def from_objective(cls, job: ProcessGroup, objective: Objective) -> GlobalObjective:
        """Return the same objective over the ranks of a job."""
        return cls(replace(objective, reduction="sum"), objective.reduction, job)

    def __call__(
        self, logits: Tensor, targets: Tensor, mu: Tensor | None, logvar: Tensor | None, beta: float | Tensor
    ) -> Losses:
        """Return the losses of a batch from this rank's logits (b, C, H, W); all ranks call it with the same beta.

        Losses and counts are those of the whole batch, equal on every rank; logits, mu and logvar are the rank's own.
        The gradient of the total is the gradient of the rank's share of the loss times the number of ranks. So the mean
        over the ranks, which DistributedDataParallel computes, is the gradient of the whole batch.
        """
        own = self.own(logits, targets, None, None, 0.0)
        latent: Tensor | None = None
        minimised = isinstance(beta, Tensor) or beta > 0
        if mu is not None and logvar is not None:
            with torch.set_grad_enabled(torch.is_grad_enabled() and minimised):
                latent = kl_per_dimension(mu, logvar).sum(dim=0)
        parts = [own.focal.reshape(1), own.focal.new_tensor([targets.shape[0]]), own.counts.flatten()]
        sums = torch.cat([part.detach().double() for part in (*parts, *([] if latent is None else [latent]))])
        sums, size = self.job.add_tensor(sums), own.counts.numel()
        focal_sum, grids, counts, divergence = sums[0], sums[1], sums[2 : 2 + size], sums[2 + size :]
        cells = counts.sum()
        one = torch.ones_like(grids)
        divisor = {"batch": grids, "mean": cells.clamp_min(1), "sum": one}[self.reduction]
        by_grid = one if self.reduction == "sum" else grids

        focal, share = focal_sum / divisor, own.focal / divisor.to(own.focal.dtype)
        kl = None if latent is None else (divergence.sum() / by_grid).to(latent.dtype)
        total = focal
        if latent is not None and minimised:
            floor = self.own.free_bits * grids
            free = divergence < floor if self.own.free_bits > 0 else torch.zeros_like(divergence, dtype=torch.bool)
            factor = beta.double() if isinstance(beta, Tensor) else beta
            total = focal + factor * torch.where(free, floor, divergence).sum() / by_grid
            share = share + (factor * torch.where(free, 0.0, latent).sum() / by_grid).to(share.dtype)
        share = self.job.size * share
        dtype = own.focal.dtype
        return Losses(
            total=_ReplaceValue.apply(share, total.to(dtype)),  # type: ignore[no-untyped-call]
            focal=focal.to(dtype),
            kl=kl,
            counts=counts.to(torch.int64).reshape(own.counts.shape),
            logits=own.logits,
            mu=None if mu is None else mu.detach(),
            logvar=None if logvar is None else logvar.detach(),
        )
