"""The objective of a batch that several ranks hold together: its value is that of the whole batch on one process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..objective.objective import Losses, Objective, kl_per_dimension
from ..recipe import FitReduction
from .process_group import ProcessGroup


class _Valued(torch.autograd.Function):
    """The value of one number with the gradient of another: all ranks see one loss, whatever a rank's share of it."""

    @staticmethod
    def forward(ctx: Any, share: Tensor, value: Tensor) -> Tensor:
        """`value`."""
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """That of `share`."""
        return gradient, None


@dataclass(frozen=True)
class GlobalObjective:
    """An `Objective` over the rows of one batch that the ranks of a job hold.

    Each rank takes from the kernel the sum of the loss over its own cells, and the confusion counts. Sums, counts and
    numbers of grids are added up over the ranks before anything is divided, so that a mean is that of the whole batch
    however its cells are spread over the ranks, ignored ones among them.
    """

    own: Objective
    """Of a rank's own rows, by reduction `sum`."""
    reduction: FitReduction
    """Of the whole batch."""
    job: ProcessGroup

    @classmethod
    def from_objective(cls, job: ProcessGroup, objective: Objective) -> GlobalObjective:
        """The same objective over the ranks of a job."""
        return cls(replace(objective, reduction="sum"), objective.reduction, job)

    def __call__(
        self, logits: Tensor, targets: Tensor, mu: Tensor | None, logvar: Tensor | None, beta: float | Tensor
    ) -> Losses:
        """Losses of this rank's rows (b, C, H, W) of a batch; all ranks call it, with the same beta.

        Losses and counts are those of the whole batch, the same on every rank; logits, mu and logvar are the rank's
        own. The gradient of the total is `size` times what the rank's own rows add to that of the whole: the mean over
        the ranks, which DistributedDataParallel takes, is the gradient of the whole.
        """
        own = self.own(logits, targets, None, None, 0.0)
        latent: Tensor | None = None
        minimised = isinstance(beta, Tensor) or beta > 0
        if mu is not None and logvar is not None:
            with torch.set_grad_enabled(torch.is_grad_enabled() and minimised):
                latent = kl_per_dimension(mu, logvar).sum(dim=0)
        parts = [own.focal.reshape(1), own.focal.new_tensor([targets.shape[0]]), own.counts.flatten()]
        sums = torch.cat([part.detach().double() for part in (*parts, *([] if latent is None else [latent]))])
        found, size = self.job.add_tensor(sums), own.counts.numel()
        head, counts, divergence = found[:2], found[2 : 2 + size], found[2 + size :]
        grids, cells = head[1], counts.sum()
        one = torch.ones_like(grids)
        divisor = {"batch": grids, "mean": cells.clamp_min(1), "sum": one}[self.reduction]
        by_grid = one if self.reduction == "sum" else grids

        focal, share = head[0] / divisor, own.focal / divisor.to(own.focal.dtype)
        kl: Tensor | None = None
        total = focal
        if latent is not None:
            kl = divergence.sum() / by_grid
        if latent is not None and minimised:
            least = self.own.free_bits * grids
            free = divergence < least if self.own.free_bits > 0 else torch.zeros_like(divergence, dtype=torch.bool)
            factor = beta.double() if isinstance(beta, Tensor) else beta
            total = focal + factor * torch.where(free, least, divergence).sum() / by_grid
            share = share + (factor * torch.where(free, 0.0, latent).sum() / by_grid).to(share.dtype)
        share = self.job.size * share
        dtype = own.focal.dtype
        return Losses(
            total=_Valued.apply(share, total.to(dtype)),  # type: ignore[no-untyped-call]
            focal=focal.to(dtype),
            kl=None if kl is None or latent is None else kl.to(latent.dtype),
            counts=counts.to(torch.int64).reshape(own.counts.shape),
            logits=own.logits,
            mu=None if mu is None else mu.detach(),
            logvar=None if logvar is None else logvar.detach(),
        )
