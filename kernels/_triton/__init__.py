"""Triton implementation, for tensors on a GPU; imported on its first use.

The operators of `vaefit.kernels.custom_op` call `focal`, `confusion` and `confusion_ready`; their backward pass calls
`scaled`. All of them only start kernels: nothing waits for the device, so that a CUDA graph can capture them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import FocalResult, FocalSetting
from .launch import workspace
from .plan import FocalOutputs, bins_for, plan_confusion, plan_focal, plan_scale


def focal(logits: Tensor, targets: Tensor, setting: FocalSetting) -> FocalResult:
    """Return loss, gradient, remainder and tally in one launch; two for counts of more classes than registers hold."""
    per_cell, classes = setting.reduction == "none", logits.shape[1]
    outputs = FocalOutputs(
        logits.new_empty(targets.shape if per_cell else (), dtype=torch.float32),
        torch.empty_like(logits) if setting.want_gradient else logits.new_empty(0),
        logits.new_ones((), dtype=torch.float32) if per_cell else logits.new_empty((), dtype=torch.float32),
        _tally(logits, classes) if setting.want_counts else logits.new_empty(0, dtype=torch.int64),
    )
    if targets.numel() == 0:
        outputs.loss.zero_()
        outputs.remainder.fill_(1.0)
        outputs.tally.zero_()
    else:
        plan_focal(logits, targets, setting, outputs, workspace(logits.device)).run()
    loss, gradient, remainder, tally = outputs
    return loss, gradient, remainder, tally if setting.want_counts else None


def confusion(logits: Tensor, targets: Tensor, ignore_index: int) -> Tensor:
    """Return the tally (C * C + 1,) of logits (B, C, *) against targets (B, *)."""
    return _count(logits, targets, ignore_index, logits.shape[1], ready=False)


def confusion_ready(predictions: Tensor, targets: Tensor, ignore_index: int, num_classes: int) -> Tensor:
    """Return the tally (C * C + 1,) of predictions (B, *) against targets (B, *)."""
    return _count(predictions, targets, ignore_index, num_classes, ready=True)


def scaled(gradient: Tensor, upstream: Tensor, remainder: Tensor, in_place: bool) -> Tensor:
    """Return gradient * upstream * remainder, rounded once; in place, a product of 1 moves nothing.

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
    """Return memory for a tally; it is zeroed only where the kernels add to it directly."""
    new = torch.empty if bins_for(classes) else torch.zeros
    return new(classes * classes + 1, dtype=torch.int64, device=like.device)
