"""Arguments of the loss and the counts: their types, their checks, and what every implementation derives from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

ClassWeights: TypeAlias = "Tensor | NDArray[Any] | Sequence[float]"
"""(C,) numbers; a tensor must be on the logits' device."""
Reduction = Literal["none", "sum", "mean", "batch"]
_REDUCTIONS = get_args(Reduction)

_INTEGERS = {
    torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16, torch.int32, torch.int64
}  # fmt: skip
_WIDE_UNSIGNED = {torch.uint16, torch.uint32, torch.uint64}
"""Dtypes that `aminmax` does not take."""


class FocalSetting(NamedTuple):
    """Arguments of the loss beside its tensors, checked."""

    weight: Tensor | None  # (C,) in the dtype of the arithmetic
    gamma: float
    ignore_index: int
    reduction: Reduction
    want_gradient: bool
    want_counts: bool


FocalResult: TypeAlias = "tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]"
"""Loss, gradient, remainder and tally.

- loss: in the dtype of the arithmetic; (B, *) for the reduction `none`, else a scalar.
- gradient: shaped and typed as the logits; None unless wanted.
- remainder: a scalar that the gradient must still be multiplied by; None is 1. It is another number for float16 logits,
  whose small gradients survive only if the divisor of the mean is applied after the upstream gradient's scale, and on a
  GPU for a mean over cells of which some are ignored: their number is known only after the gradient is written.
- tally: int64 (C * C + 1,), the confusion counts by rows and then the number of labels outside 0..C-1 that are not
  ignored; None unless wanted.
"""


def is_integer(tensor: Tensor) -> bool:
    """True for every signed and unsigned integer dtype; bool is not one."""
    return tensor.dtype in _INTEGERS


def check_tensor(value: object, name: str) -> None:
    """Raise TypeError for an array or a list in place of a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}, not a tensor. Pass torch.as_tensor({name}).")


def compute_dtype(logits: Tensor) -> torch.dtype:
    """Return the dtype of the arithmetic: float64 for float64 logits, float32 for every narrower type."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def check_logits(logits: Tensor, targets: Tensor) -> None:
    """Raise ValueError unless logits are (B, C, *) of floats and targets (B, *) of integers beside them."""
    check_tensor(logits, "logits")
    if not logits.is_floating_point():
        raise ValueError(f"logits have dtype {logits.dtype}. Pass float16, bfloat16, float32 or float64.")
    if logits.dim() < 2 or logits.shape[1] < 1:
        raise ValueError(f"logits have shape {tuple(logits.shape)}. Pass (B, C) or (B, C, *) with C >= 1.")
    check_targets(targets, expected=(logits.shape[0], *logits.shape[2:]), device=logits.device)


def check_targets(targets: Tensor, expected: tuple[int, ...], device: torch.device) -> None:
    """Raise ValueError unless targets are integers of the expected shape on the expected device."""
    check_tensor(targets, "targets")
    if not is_integer(targets):
        raise ValueError(f"targets have dtype {targets.dtype}. Pass class labels in an integer dtype.")
    if tuple(targets.shape) != expected:
        raise ValueError(f"targets have shape {tuple(targets.shape)}, but {expected} is needed beside the logits.")
    if targets.device != device:
        raise ValueError(f"targets are on {targets.device}, the logits on {device}. Move one of them.")


def cells_that_count(targets: Tensor, num_classes: int, ignore_index: int) -> Tensor | None:
    """Return the bool mask (B, *) of the cells whose label is a class and not ignored.

    On the CPU it is None where every cell counts, which spares the loss its masking, and a label outside 0..C-1 that is
    not `ignore_index` raises ValueError. On another device looking would stall the stream, so such a cell is skipped as
    an ignored one is: the loss never indexes with it, and the counts then sum to less than the cells that are not
    ignored.
    """
    on_cpu = targets.device.type == "cpu"
    if on_cpu:
        low, high = _range(targets)
        if low >= 0 and high < num_classes and not low <= ignore_index <= high:
            return None
    # int64 first: a uint8 label compared with -100 would be compared with 156
    labels = targets.to(torch.int64)
    kept = labels != ignore_index
    inside = (labels >= 0) & (labels < num_classes)
    if on_cpu:
        bad = kept & ~inside
        if bad.any():
            position = tuple(bad.nonzero()[0].tolist())
            raise ValueError(
                f"targets hold label {int(labels[position])} at {position}, but the classes are 0..{num_classes - 1}. "
                f"Mend the label, pass logits with more classes, or name it as ignore_index (now {ignore_index})."
            )
    return kept & inside


def labels_and_mask(targets: Tensor, num_classes: int, ignore_index: int) -> tuple[Tensor, Tensor | None]:
    """Return int64 labels, 0 where a cell is skipped, and the mask of `cells_that_count`; both shaped (B, *)."""
    kept = cells_that_count(targets, num_classes, ignore_index)
    labels = targets.to(torch.int64)
    return (labels if kept is None else labels.masked_fill(~kept, 0)), kept


def checked_predictions(predictions: Tensor, kept: Tensor | None, num_classes: int) -> Tensor:
    """Return ready predictions as int64, -1 where outside 0..C-1; ValueError for such a one that counts, on the CPU."""
    if predictions.device.type == "cpu":
        low, high = _range(predictions)
        if low >= 0 and high < num_classes:
            return predictions.to(torch.int64)
    ready = predictions.to(torch.int64)
    outside = (ready < 0) | (ready >= num_classes)
    bad = outside if kept is None else outside & kept
    if ready.device.type == "cpu" and bad.any():
        position = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"predictions hold class {int(ready[position])} at {position}, but the classes are 0..{num_classes - 1}. "
            "Pass a larger num_classes, or mend the predictions."
        )
    return ready.masked_fill(outside, -1)


def _range(labels: Tensor) -> tuple[int, int]:
    """Return the smallest and the largest label on the CPU; (0, 0) of none."""
    if labels.numel() == 0:
        return 0, 0
    if labels.dtype in _WIDE_UNSIGNED:
        labels = labels.to(torch.int64)
    low, high = labels.aminmax()
    return low.item(), high.item()  # type: ignore[return-value]


def class_weight(weight: ClassWeights | None, logits: Tensor) -> Tensor | None:
    """Return the class weights as (C,) in the dtype of the arithmetic; raise ValueError if they do not fit."""
    if weight is None:
        return None
    if not isinstance(weight, Tensor):
        weight = torch.tensor(weight, dtype=compute_dtype(logits), device=logits.device)
    if weight.shape != (logits.shape[1],):
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}, but the logits have {logits.shape[1]} classes. "
            f"Pass one weight a class: ({logits.shape[1]},)."
        )
    if weight.requires_grad:
        raise ValueError("weight requires a gradient, but class weights are constants here. Pass weight.detach().")
    if weight.device != logits.device:
        raise ValueError(f"weight is on {weight.device}, the logits on {logits.device}. Move one of them.")
    dtype = compute_dtype(logits)
    return (weight if weight.dtype == dtype else weight.to(dtype)).resolve_neg()


def check_gamma(gamma: float) -> None:
    """Raise ValueError unless gamma is a finite number of at least 0."""
    if not (math.isfinite(gamma) and gamma >= 0):
        raise ValueError(f"gamma is {gamma}. Pass a finite number >= 0; 0 gives cross-entropy.")


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
