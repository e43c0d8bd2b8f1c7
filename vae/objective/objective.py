"""Objective of a fit: reduced focal loss plus beta times KL, and the check against its closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vaefit.kernels import Backend, focal_loss_with_counts

from ..errors import RunError
from ..recipe import FitReduction, Recipe

RELATIVE_TOLERANCE = 1e-4
NO_LABEL = -100
"""The kernels' ignore_index where no label is ignored: the batch was checked to hold no such label."""


@dataclass(frozen=True)
class Measured:
    """Losses and confusion counts of a batch as numbers."""

    loss: float
    focal: float
    kl: float | None
    """None where the model gives no mu and logvar."""
    counts: NDArray[np.int64]
    """Confusion counts (C, C)."""


@dataclass(frozen=True)
class Losses:
    """The objective of one batch and its parts."""

    total: Tensor
    focal: Tensor
    kl: Tensor | None
    """None where the model gives no mu and logvar."""
    counts: Tensor
    """Confusion counts (C, C) int64 of the logits of the loss."""
    logits: Tensor
    """(B, C, H, W), detached."""
    mu: Tensor | None = None
    """(B, *), detached, like `logvar`."""
    logvar: Tensor | None = None

    def measured(self) -> Measured:
        """Return the losses as numbers; waits for the device."""
        return Measured(
            loss=self.total.item(),
            focal=self.focal.item(),
            kl=None if self.kl is None else self.kl.item(),
            counts=self.counts.cpu().numpy(),
        )


@dataclass(frozen=True)
class Objective:
    """Reduced weighted focal loss + beta * KL.

    `weight` is (C,) on the device of the logits. The KL divergence from N(0, 1) (Kingma and Welling 2014, appendix B)
    is summed over dimensions and averaged over the batch, or summed with reduction `sum`. So with `batch` and `sum`
    beta is on the scale of the evidence lower bound; with `mean`, whose focal part is a mean over cells, it acts H * W
    times stronger. Where a dimension's mean over the batch is below `free_bits` nats, `free_bits` replaces it in
    the minimised sum (Kingma et al. 2016, "Improved variational inference with inverse autoregressive flow", appendix
    C.8); the recorded KL is the divergence itself.
    """

    weight: Tensor
    gamma: float = 2.0
    reduction: FitReduction = "batch"
    ignore_index: int = NO_LABEL
    backend: Backend = "auto"
    free_bits: float = 0.0

    @classmethod
    def build(
        cls, weights: ArrayLike, recipe: Recipe, ignore_index: int | None, backend: Backend, device: torch.device
    ) -> Objective:
        """Build the objective of a recipe with class weights (C,)."""
        weight = torch.tensor(weights, dtype=torch.float32, device=device)
        ignored = NO_LABEL if ignore_index is None else ignore_index
        return cls(weight, recipe.gamma, recipe.reduction, ignored, backend, recipe.free_bits)

    def __call__(
        self, logits: Tensor, targets: Tensor, mu: Tensor | None, logvar: Tensor | None, beta: float | Tensor
    ) -> Losses:
        """Return losses of logits (B, C, H, W) against targets (B, H, W); `mu` and `logvar` are (B, *) or None.

        A beta that is a scalar tensor must be positive: a test of its value would wait for the device.
        """
        if logits.device.type == "cpu":
            logits = logits.contiguous()  # with the classes outermost, every pass over them is vectorised
        weight = self.weight.to(logits.dtype) if logits.dtype == torch.float64 else self.weight
        focal, counts = focal_loss_with_counts(
            logits, targets, weight, self.gamma, self.ignore_index, self.reduction, self.backend
        )
        if mu is None or logvar is None:
            return Losses(focal, focal, None, counts, logits.detach())
        minimised = isinstance(beta, Tensor) or beta > 0
        # with beta 0 the divergence is recorded but not minimised
        with torch.set_grad_enabled(torch.is_grad_enabled() and minimised):
            kl = cost = kl_divergence(mu, logvar, self.reduction)
        total = focal
        if minimised:
            if self.free_bits > 0:
                grids = mu.shape[0] if self.reduction == "sum" else 1
                cost = grids * kl_per_dimension(mu, logvar).mean(dim=0).clamp_min(self.free_bits).sum()
            total = focal + (beta.to(kl.dtype) if isinstance(beta, Tensor) else beta) * cost
        return Losses(total, focal, kl, counts, logits.detach(), mu.detach(), logvar.detach())


def divisors(batch: int, cells: int) -> dict[str, int]:
    """Return the divisor of the sum over cells for each reduction: `batch` grids in which `cells` cells count."""
    return {"batch": max(batch, 1), "mean": max(cells, 1), "sum": 1}


def kl_divergence(mu: Tensor, logvar: Tensor, reduction: FitReduction) -> Tensor:
    """Return KL(N(mu, exp(logvar)) || N(0, 1)) in nats: the sum over dimensions, then mean (or sum) over the batch."""
    kl = kl_per_dimension(mu, logvar).sum(dim=1)
    return kl.sum() if reduction == "sum" else kl.mean()


def kl_per_dimension(mu: Tensor, logvar: Tensor) -> Tensor:
    """Return KL(N(mu, exp(logvar)) || N(0, 1)) in nats of each grid and dimension, (B, latent); mu may be (B, *)."""
    # rounding in a narrower dtype would exceed the share of one dimension
    mu, logvar = (part if part.dtype == torch.float64 else part.float() for part in (mu, logvar))
    return (0.5 * (mu.square() + logvar.exp() - 1.0 - logvar)).flatten(1)


def check_objective(objective: Objective, targets: Tensor) -> float:
    """Compare the objective of all-zero logits with its closed form and return it.

    Zero logits give every class the probability 1/C, so the loss with n_c cells of class c must be

        (1 - 1/C)^gamma ln C * sum_c n_c w_c / divisor.

    Raises RunError, which names the likely cause, where they differ by more than 1e-4 of the closed form.
    """
    classes = objective.weight.numel()
    kept = targets[targets.to(torch.int64) != objective.ignore_index]
    n = torch.bincount(kept.to(torch.int64).reshape(-1), minlength=classes).double().cpu()
    w = objective.weight.double().cpu()
    batch = targets.shape[0]
    unit = (1.0 - 1.0 / classes) ** objective.gamma * math.log(classes)
    known = divisors(batch, int(n.sum()))
    expected = unit * float((n * w).sum()) / known[objective.reduction]

    zeros = torch.zeros(batch, classes, *targets.shape[1:], dtype=torch.float32, device=targets.device)
    found = objective(zeros, targets, None, None, 0.0).total.item()
    if abs(found - expected) <= RELATIVE_TOLERANCE * abs(expected):
        return found
    likely = _likely_cause(found, objective.reduction, known, unit, n, w)
    raise RunError(
        f"the objective of all-zero logits is not its closed form, {expected:.6g}",
        "objective",
        got=f"{found:.6g}",
        do=f"Likely cause: {likely}.",
    )


def _likely_cause(found: float, reduction: str, known: dict[str, int], unit: float, n: Tensor, w: Tensor) -> str:
    """Return the divisor or the weights that would give `found`, in words."""
    weightings = {
        "": float((n * w).sum()),
        "the weights are applied twice": float((n * w * w).sum()),
        "the weights are not applied": float(n.sum()),
    }
    by_weight = float((n * w).sum())
    for weighting, total in weightings.items():
        for name, divisor in {**known, "sum of weights": by_weight}.items():
            value = unit * total / divisor if divisor else math.inf
            if abs(found - value) <= RELATIVE_TOLERANCE * abs(value):
                other = "" if name == reduction else f"the reduction is by {name}, not by {reduction}"
                return " and ".join(filter(None, [weighting, other]))
    return "the loss is not the focal loss with these weights and this gamma"
