"""Reduction of the losses of all cells to one number."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

Reduction = Literal["none", "sum", "mean", "batch"]
_REDUCTIONS = get_args(Reduction)


def check_reduction(reduction: str) -> None:
    """Raise ValueError for a word that is not a Reduction."""
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}. Use one of {', '.join(_REDUCTIONS)}.")


def divisor(cells: Tensor, kept: Tensor | None, reduction: Reduction) -> Tensor | int:
    """Return the divisor of the sum over `cells` (B, *); `kept` masks the cells that count, None where all do.

    `mean` divides by the number of kept cells, not by the sum of their weights as torch's weighted cross-entropy does;
    `batch` divides by B. The divisor is at least 1, so that the loss of no cells is 0. The number of kept cells stays
    on the device, so that nothing waits for it.
    """
    check_reduction(reduction)
    if reduction == "mean":
        return max(cells.numel(), 1) if kept is None else kept.sum().clamp(min=1)
    if reduction == "batch":
        return max(cells.shape[0], 1)
    return 1
