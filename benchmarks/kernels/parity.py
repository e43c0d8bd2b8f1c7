"""Parity of an answer with the reference in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vaefit.kernels import confusion_counts_reference, focal_loss_reference

from .inputs import Answer, Contestant, Inputs, Op

SLICE = 1 << 24
"""Logits that the reference takes at a time: in float64 and with its graph they need 1 GB."""
LOSS_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-10}
"""Ours computes in float32 whatever the logits, so the gradient may be off by its last rounding."""
PEER_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.05}
"""Peers compute in the logits' dtype. A wrong formula is off by more."""
PEER_CELLS = 0.01
"""Share of cells that a peer may count elsewhere: another one of several equal largest logits."""


@dataclass(frozen=True)
class Expected:
    """Answer of the reference."""

    loss: Tensor  # float64, scalar
    gradient: Tensor  # float64, shaped as the logits
    counts: Tensor  # (C, C) int64


@dataclass(frozen=True)
class Agreement:
    """Errors of an answer; 0 for the parts that it need not hold."""

    loss: float
    """Relative."""
    gradient: float
    """The larger of: largest difference over largest value; norm of the differences over norm."""
    cells: float
    """Share of cells that are counted elsewhere."""

    @property
    def error(self) -> float:
        """Return the larger error of loss and gradient, NaN where one is NaN."""
        # max() would pass over a NaN that comes second
        return math.nan if math.isnan(self.gradient) else max(self.loss, self.gradient)

    def passes(self, dtype: torch.dtype) -> bool:
        """True where the errors are small enough for an answer of ours, with equal counts."""
        return self.loss <= LOSS_TOLERANCE and self.gradient <= GRADIENT_TOLERANCE[dtype] and self.cells == 0

    def passes_as_peer(self, dtype: torch.dtype) -> bool:
        """True where the errors are small enough for a peer's answer."""
        return self.error <= PEER_TOLERANCE[dtype] and self.cells <= PEER_CELLS

    def __str__(self) -> str:
        cells = f"{self.cells:.2%} of the cells counted elsewhere"
        return f"loss off by {self.loss:.1e}, gradient by {self.gradient:.1e}, {cells}"


def expected(inputs: Inputs, gamma: float, weighted: bool) -> Expected:
    """Return the reference's loss (mean), its gradient for the inputs' upstream gradient and the counts, in float64."""
    logits, targets = inputs.logits.detach(), inputs.targets
    classes, weight = logits.shape[1], inputs.weight.double() if weighted else None
    scale = inputs.upstream / max(targets.numel(), 1)
    loss = torch.zeros((), dtype=torch.float64, device=logits.device)
    gradient = torch.empty(logits.shape, dtype=torch.float64, device=logits.device)
    predictions = torch.empty_like(targets)
    rows = max(1, SLICE * logits.shape[0] // max(logits.numel(), 1))
    for first in range(0, logits.shape[0], rows):
        part = slice(first, first + rows)
        exact = logits[part].double().requires_grad_()
        total = focal_loss_reference(exact, targets[part], weight, gamma, reduction="sum")
        gradient[part] = scale * torch.autograd.grad(total, exact)[0]
        loss += total.detach() / max(targets.numel(), 1)
        predictions[part] = exact.argmax(dim=1)
    # once: it goes through every pair of classes
    return Expected(loss, gradient, confusion_counts_reference(predictions, targets, num_classes=classes))


def difference(answer: Answer, known: Expected, op: Op) -> Agreement:
    """Return the errors of the answer; ValueError where a part that `op` names is missing or has another shape."""
    loss = gradient = cells = 0.0
    for part, found, right in (
        ("loss", answer.loss, known.loss),
        ("gradient", answer.gradient, known.gradient),
        ("counts", answer.counts, known.counts),
    ):
        if part in op and (found is None or found.shape != right.shape):
            raise ValueError(f"{op}: the {part} has shape {None if found is None else tuple(found.shape)}.")
    if "loss" in op and answer.loss is not None:
        loss = _relative(answer.loss.detach().double() - known.loss, known.loss)
    if "gradient" in op and answer.gradient is not None:
        off = answer.gradient.double() - known.gradient
        gradient = _relative(off, known.gradient)
    if "counts" in op and answer.counts is not None:
        cells = float((answer.counts - known.counts).abs().sum() / 2 / known.counts.sum().clamp(min=1))
    return Agreement(loss, gradient, cells)


def judge(contestant: Contestant, inputs: Inputs, op: Op, known: Expected) -> Agreement:
    """Call a contestant once on unchanged inputs and compare its answer with the expected one."""
    return difference(contestant.call(contestant.prepare(inputs), op), known, op)


def _relative(off: Tensor, right: Tensor) -> float:
    """Return the larger of largest difference over largest value and norm over norm; NaN where one is NaN."""
    tiny = torch.finfo(torch.float64).tiny
    peak = off.abs().max() / right.abs().max().clamp(min=tiny)
    norm = off.norm() / right.norm().clamp(min=tiny)
    return float(torch.maximum(peak, norm))
