"""Preflight: compare loss, gradient and confusion counts with the float64 reference before the first step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vaefit.kernels import choose_backend, confusion_counts, focal_loss_reference

from ..errors import RunError
from .objective import Objective, divisors

TOLERANCE = 1e-5
"""Largest difference of a float32 loss or gradient from float64, relative to the largest value."""
SPREAD = 8.0
"""Standard deviation of the random logits: some cells are certain and right, some certain and wrong, some ties."""
PART = 1 << 22
"""Logits of one call of the reference: its float64 must not need more memory than the model does."""
STEEP = 10.0
"""gamma from which the tolerance grows: float32 rounds (1 - p_t)^gamma by gamma times the rounding of p_t."""


@dataclass(frozen=True)
class Agreement:
    """Difference between a loss and the float64 reference; `str()` gives the text of a run header.

    The loss is relative to the reference's loss or to the weight of all cells, the gradient to the reference's largest
    entry or to the weight of one cell, whichever is larger: where a model is certain of every answer, the rest is
    rounding.
    """

    loss: float
    gradient: float
    miscounted: int
    """Entries of the confusion counts that differ from the reference's; must be 0, because ties have a rule."""
    loss_allowed: float = TOLERANCE
    gradient_allowed: float = TOLERANCE

    @property
    def loss_agrees(self) -> bool:
        """True where loss and gradient are within their tolerance; False for NaN."""
        return self.loss <= self.loss_allowed and self.gradient <= self.gradient_allowed

    @property
    def agrees(self) -> bool:
        """True where loss, gradient and counts agree."""
        return self.loss_agrees and self.miscounted == 0

    def __str__(self) -> str:
        counts = "counts equal" if self.miscounted == 0 else f"{self.miscounted} of the counts differ"
        return f"loss {_short(self.loss)}, gradient {_short(self.gradient)}, {counts}"


def preflight(objective: Objective, logits: Tensor, targets: Tensor) -> Agreement | None:
    """Compare the objective with the reference on a model's logits (B, C, H, W), and on random logits of their shape.

    The first logits of a model are small and all different. So the comparison is repeated on random whole numbers, in
    which classes tie and probabilities come near 0 and 1. Returns the larger differences of the two, or None where loss
    or gradient is not finite: the verdict reports that. Draws nothing from torch's global generators.

    Raises:
        RunError: loss, gradient or counts do not agree.
    """
    both = (difference(objective, some, targets) for some in (logits, random_like(logits)))
    finite = [found for found in both if found is not None]
    if not finite:
        return None
    worst = replace(
        finite[0],
        loss=_largest(*(found.loss for found in finite)),
        gradient=_largest(*(found.gradient for found in finite)),
        miscounted=max(found.miscounted for found in finite),
    )
    if worst.agrees:
        return worst
    choice = choose_backend(objective.backend, logits)
    other = {"reference": "", "eager": "Pass --backend reference"}.get(choice.name, "Pass --backend eager")
    report = "eport it with what `vaefit-cli doctor` prints."
    allowed = f"{worst.loss_allowed:g} and {worst.gradient_allowed:g} are allowed"
    raise RunError(
        "loss, gradient or counts of this batch are not those of the float64 reference",
        f"focal loss {choice}",
        got=f"{worst}, relative to the largest value; {allowed}",
        do=f"{other}, and r{report}" if other else f"R{report}",
    )


def difference(objective: Objective, logits: Tensor, targets: Tensor) -> Agreement | None:
    """Return the difference on logits (B, C, H, W); None where loss or gradient cannot be finite in their dtype."""
    found = logits.detach().requires_grad_()
    with torch.enable_grad():
        losses = objective(found, targets, None, None, 0.0)
        (gradient,) = torch.autograd.grad(losses.total, found)
    place = logits.device if logits.device.type == "cuda" else torch.device("cpu")  # other devices may have no float64
    labels = targets.to(place, torch.int64)
    kept = labels != objective.ignore_index
    weight = objective.weight.to(place).double()
    divisor = divisors(targets.shape[0], int(kept.sum()))[objective.reduction]
    importance = weight[labels[kept]] / divisor

    loss, off, largest = 0.0, 0.0, 0.0
    counts = torch.zeros(losses.counts.shape, dtype=torch.int64, device=place)
    size = max(1, PART // max(logits[0].numel(), 1))
    for first in range(0, logits.shape[0], size):
        part = slice(first, first + size)
        exact = logits[part].detach().to(place).double().requires_grad_()
        with torch.enable_grad():
            total = focal_loss_reference(exact, labels[part], weight, objective.gamma, objective.ignore_index, "sum")
            (wanted,) = torch.autograd.grad(total / divisor, exact)
        if not bool(wanted.to(gradient.dtype).isfinite().all()):
            return None
        loss += total.item() / divisor
        off = _largest(off, (gradient[part].to(place) - wanted).abs().max().item())
        largest = max(largest, wanted.abs().max().item())
        predictions = exact.detach().argmax(dim=1)
        counts += confusion_counts(
            predictions, labels[part], objective.ignore_index, "eager", num_classes=logits.shape[1]
        )
    if abs(loss) > torch.finfo(losses.total.dtype).max or math.isnan(loss):
        return None
    allowed = TOLERANCE * max(1.0, objective.gamma / STEEP)
    return Agreement(
        loss=_relative(abs(losses.total.item() - loss), max(loss, importance.sum().item())),
        gradient=_relative(off, max(largest, importance.max().item())),
        miscounted=int((losses.counts.to(place) != counts).sum()),
        loss_allowed=allowed,
        gradient_allowed=max(allowed, torch.finfo(logits.dtype).eps),  # a narrower gradient is rounded
    )


def random_like(logits: Tensor) -> Tensor:
    """Return random whole numbers with the shape, dtype and layout of the logits; equal at every call."""
    generator = torch.Generator(logits.device).manual_seed(0)
    drawn = torch.empty_like(logits, dtype=torch.float32, requires_grad=False).normal_(std=SPREAD, generator=generator)
    return drawn.round_().to(logits.dtype)


def _largest(*values: float) -> float:
    return math.nan if any(map(math.isnan, values)) else max(values)


def _relative(off: float, scale: float) -> float:
    return off / scale if scale else off


def _short(value: float) -> str:
    return f"{value:.0e}" if value else "0"
