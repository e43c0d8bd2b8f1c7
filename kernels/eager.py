"""The fused path without a compiler: the gradient is written over the log-softmax during the forward pass.

With l = log p_t, q = 1 - p_t and L = -w q^gamma l:

    dL/dl   = -w q^gamma (1 - gamma p_t l / q)
    dL/dz_c = (dL/dl) ([c = t] - p_c)

so one buffer of the logits' size serves first as log-softmax and then as gradient. [c = t] - p_c is q itself at the
target, free of cancellation. p_t l / q tends to 0 with p_t, and to -1 as p_t tends to 1, where q^gamma or gamma is 0
and makes it meaningless: with l and q held off -inf and 0, every gamma >= 0 stays finite.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .arguments import checked_predictions, compute_dtype, labels_and_mask
from .reduction import Reduction, divisor, reduce_loss

BLOCK = 1 << 18
"""Logits that predictions are taken of at a time; the scratch buffer stays in the cache."""


def focal(
    logits: Tensor,  # (B, C, *)
    targets: Tensor,  # (B, *)
    weight: Tensor | None,  # (C,)
    gamma: float,
    ignore_index: int,
    reduction: Reduction,
    want_gradient: bool,
    want_counts: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss, gradient, remainder and tally, as the operator `vaefit::focal_loss` defines them."""
    dtype = compute_dtype(logits)
    labels, kept = labels_and_mask(targets, logits.shape[1], ignore_index)
    log_p = torch.log_softmax(logits, dim=1, dtype=dtype)
    index = labels.unsqueeze(1)
    log_pt = log_p.gather(1, index).squeeze(1)  # (B, *)
    miss = torch.expm1(log_pt).neg_()
    focus = miss**gamma
    if weight is not None:
        focus *= weight[labels]
    loss = (focus * log_pt).neg_()
    if kept is not None:
        loss.masked_fill_(~kept, 0.0)
    reduced = reduce_loss(loss, kept, reduction)
    gradient, remainder = logits.new_empty(0), torch.ones((), dtype=dtype, device=logits.device)
    if want_gradient:
        limits = torch.finfo(dtype)
        ratio = log_pt.exp() * log_pt.clamp(min=limits.min) / miss.clamp(min=limits.tiny)
        slope = focus * (1.0 - gamma * ratio)  # -dL/dl
        by = divisor(loss, kept, reduction)
        if logits.dtype == torch.float16:
            remainder = remainder / by
        else:
            slope = slope / by
        if kept is not None:
            slope.masked_fill_(~kept, 0.0)
        gradient = log_p.exp_().mul_(slope.unsqueeze(1))
        gradient.scatter_(1, index, (slope * miss).neg_().unsqueeze(1))
        if kept is not None:
            # 0 * NaN: an ignored cell passes nothing on whatever its logits hold
            gradient.masked_fill_(~kept.unsqueeze(1), 0.0)
        gradient = torch.empty_like(logits).copy_(gradient)
    tally = logits.new_empty(0, dtype=torch.int64)
    if want_counts:
        tally = _tally(predict(logits), targets, labels, kept, ignore_index, logits.shape[1])
    return reduced, gradient, remainder, tally


def confusion(logits: Tensor, targets: Tensor, ignore_index: int) -> Tensor:
    """Tally (C * C + 1,) of logits (B, C, *) against targets (B, *)."""
    labels, kept = labels_and_mask(targets, logits.shape[1], ignore_index)
    return _tally(predict(logits), targets, labels, kept, ignore_index, logits.shape[1])


def confusion_ready(predictions: Tensor, targets: Tensor, ignore_index: int, num_classes: int) -> Tensor:
    """Tally (C * C + 1,) of predictions (B, *) against targets (B, *)."""
    labels, kept = labels_and_mask(targets, num_classes, ignore_index)
    ready = checked_predictions(predictions, kept, num_classes)
    valid = ready >= 0
    kept = valid if kept is None else kept & valid
    return _tally(ready, targets, labels, kept, ignore_index, num_classes)


def _tally(
    predictions: Tensor, targets: Tensor, labels: Tensor, kept: Tensor | None, ignore_index: int, num_classes: int
) -> Tensor:
    """Confusion counts by rows, then how many cells that are not ignored hold a label outside the classes."""
    pairs = num_classes * num_classes
    index = labels * num_classes + predictions
    if kept is not None:
        # two more bins, so that no boolean selection has to wait for the device
        ignored = targets.to(torch.int64) == ignore_index
        index = torch.where(kept, index, pairs + ignored.to(torch.int64))
    index = index.reshape(-1)
    if index.device.type == "cpu":
        return torch.bincount(index, minlength=pairs + 2)[: pairs + 1]
    counts = torch.zeros(pairs + 2, dtype=torch.int64, device=index.device)
    return counts.scatter_add_(0, index, torch.ones_like(index))[: pairs + 1]


def predict(logits: Tensor) -> Tensor:
    """Predicted class (B, *) int64 of logits (B, C, *); the lowest index wins ties, and NaN wins over all."""
    if logits.device.type != "cpu" or logits.numel() == 0:
        return logits.max(1)[1]
    top = logits.amax(1, keepdim=True)
    if top.isnan().any():
        return logits.max(1)[1]
    # on the CPU torch's max with indices takes one element at a time; amax, eq into floats and mul are vectorised
    batch, classes, *rest = logits.shape
    rank = torch.arange(classes, 0, -1, dtype=torch.float32).view(1, -1, *(1 for _ in rest))
    rows = max(1, BLOCK * batch // logits.numel())
    scratch = torch.empty(min(rows, batch), classes, *rest, dtype=torch.float32)
    predictions = torch.empty(batch, *rest, dtype=torch.int64)
    for first in range(0, batch, rows):
        part = slice(first, first + rows)
        hit = scratch[: min(rows, batch - first)]
        torch.eq(logits[part], top[part], out=hit)
        predictions[part] = classes - hit.mul_(rank).amax(1)
    return predictions
