"""The Triton kernels, for tensors on a GPU; imported when the first of them arrives.

`focal`, `confusion` and `confusion_ready` are what the operators of `vaefit.kernels.custom_op` call, `scaled` what its
backward pass does. All of them only start kernels: nothing waits for the device, so that a CUDA graph can capture them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..reduction import Reduction
from .launch import workspace
from .plan import BY_KEPT, FocalOutputs, FocalSetting, bins_for, plan_confusion, plan_focal, plan_scale


def focal(
    logits: Tensor,  # (B, C, *)
    targets: Tensor,  # (B, *)
    weight: Tensor | None,  # (C,) float32
    gamma: float,
    ignore_index: int,
    reduction: Reduction,
    want_gradient: bool,
    want_counts: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss, gradient, remainder and tally in one launch; two with counts of more classes than registers hold."""
    per_cell, classes = reduction == "none", logits.shape[1]
    outputs = FocalOutputs(
        logits.new_empty(targets.shape if per_cell else (), dtype=torch.float32),
        torch.empty_like(logits) if want_gradient else logits.new_empty(0),
        logits.new_ones((), dtype=torch.float32) if per_cell else logits.new_empty((), dtype=torch.float32),
        _tally(logits, classes) if want_counts else logits.new_empty(0, dtype=torch.int64),
    )
    if targets.numel() == 0:
        return outputs.loss.zero_(), outputs.gradient, outputs.remainder.fill_(1.0), outputs.tally.zero_()
    divisor = {"none": 1.0, "sum": 1.0, "batch": float(logits.shape[0]), "mean": BY_KEPT}[reduction]
    divided_by = float(targets.numel()) if reduction == "mean" else divisor
    if logits.dtype == torch.float16:
        divided_by = 1.0  # halves lose what is small; the backward pass divides, after a loss scale has been applied
    setting = FocalSetting(gamma, ignore_index, divided_by, divisor, per_cell, want_gradient, want_counts)
    plan_focal(logits, targets, weight, setting, outputs, workspace(logits.device)).run()
    return outputs.loss, outputs.gradient, outputs.remainder, outputs.tally


def confusion(logits: Tensor, targets: Tensor, ignore_index: int) -> Tensor:
    """Tally (C * C + 1,) of logits (B, C, *) against targets (B, *)."""
    return _count(logits, targets, ignore_index, logits.shape[1], ready=False)


def confusion_ready(predictions: Tensor, targets: Tensor, ignore_index: int, num_classes: int) -> Tensor:
    """Tally (C * C + 1,) of predictions (B, *) against targets (B, *)."""
    return _count(predictions, targets, ignore_index, num_classes, ready=True)


def scaled(gradient: Tensor, upstream: Tensor, remainder: Tensor, in_place: bool) -> Tensor:
    """gradient * upstream * remainder, rounded once; in place, nothing is moved where the product of the scalars is 1.

    Args:
        gradient: dense in memory, as the operator made it.
        upstream, remainder: float32 scalars.
    """
    out = gradient if in_place else torch.empty_like(gradient)
    if gradient.numel():
        plan_scale(gradient, upstream, remainder, out).run()
    return out


def _count(values: Tensor, targets: Tensor, ignore_index: int, classes: int, ready: bool) -> Tensor:
    tally = _tally(values, classes)
    if targets.numel() == 0:
        return tally.zero_()
    plan_confusion(values, targets, ignore_index, classes, ready, tally, workspace(values.device)).run()
    return tally


def _tally(like: Tensor, classes: int) -> Tensor:
    """Memory for a tally; set to zero only where the kernels add to it directly."""
    new = torch.empty if bins_for(classes) else torch.zeros
    return new(classes * classes + 1, dtype=torch.int64, device=like.device)
