"""Fused implementation in torch operators: loss, analytic gradient and counts, one block of logits after another.

With m the largest logit of a cell, e_c = exp(z_c - m), R the sum of e_c over the classes other than the target t, and
S = R + e_t: p = e_t / S, and q = R / S is 1 - p without cancellation. Then

    L         = -w q^gamma log p,  where  -log p = log(1 + R / e_t)
    dL/dz_c   = a e_c,             where  a = w q^(gamma - 1) (R - gamma e_t log p) / S^2
    dL/dz_t   = -a R

so one exponential a logit serves the loss and, with -R put in the target's place and all multiplied by a, becomes the
gradient. e_t log p tends to 0 with e_t, and all of it with R: with -log p held off infinity and q, under a negative
power, off 0, every gamma >= 0 stays finite.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..checks import (
    FocalResult,
    FocalSetting,
    cells_that_count,
    checked_predictions,
    compute_dtype,
    divisor,
    labels_and_mask,
)
from .blocks import Block, blocks, cut, folded
from .confusion import empty_tally, predict, tally_pairs

_LOG2_E = math.log2(math.e)


def focal(logits: Tensor, targets: Tensor, setting: FocalSetting) -> FocalResult:
    """Return loss, gradient, remainder and tally; see `FocalResult`."""
    weight, gamma, ignore_index, reduction, want_gradient, want_counts = setting
    kept = cells_that_count(targets, logits.shape[1], ignore_index)
    by = divisor(targets, kept, reduction)
    alpha = _one(logits) if weight is None else weight
    late = logits.dtype == torch.float16
    if not late:
        alpha = alpha / by
    gradient = torch.empty_like(logits) if want_gradient else None
    fold, z, slopes = folded(logits, gradient)
    losses = fold.empty_cells(targets.shape, alpha) if reduction == "none" else None
    total: Tensor | None = None
    tally = empty_tally(logits.shape[1], logits.device) if want_counts else None
    for block in blocks(fold, z, targets, kept, ignore_index, slopes):
        top = block.logits.amax(1, keepdim=True)
        if tally is not None:
            tally += _tally(block, top)
        _exponentials(block, top)
        del top  # memory for each cell adds up: a float is a tenth of ten logits
        cells = _focal_block(block, alpha, gamma)
        if losses is None:
            total = cells.sum() if total is None else total.add_(cells.sum())
        else:
            cut(fold.cells(losses), block.where).copy_(cells.view(block.labels.shape))
    loss = alpha.new_zeros(()) if total is None else total
    if losses is not None:
        loss = losses.contiguous()
    if late:
        return loss / by, gradient, _one(logits) / by, tally
    # None, which stands for 1, is possible only where the host knows the remainder
    return loss, gradient, None if logits.device.type == "cpu" else _one(logits), tally


def _one(logits: Tensor) -> Tensor:
    return torch.ones((), dtype=compute_dtype(logits), device=logits.device)


def confusion(logits: Tensor, targets: Tensor, ignore_index: int) -> Tensor:
    """Return the tally (C * C + 1,) of logits (B, C, *) against targets (B, *)."""
    kept = cells_that_count(targets, logits.shape[1], ignore_index)
    tally = empty_tally(logits.shape[1], logits.device)
    fold, z, _ = folded(logits, None)
    for block in blocks(fold, z, targets, kept, ignore_index):
        tally += _tally(block, block.logits.amax(1, keepdim=True))
    return tally


def confusion_ready(predictions: Tensor, targets: Tensor, ignore_index: int, num_classes: int) -> Tensor:
    """Return the tally (C * C + 1,) of predictions (B, *) against targets (B, *)."""
    labels, kept = labels_and_mask(targets, num_classes, ignore_index)
    ready = checked_predictions(predictions, kept, num_classes)
    valid = ready >= 0
    skipped = ~valid if kept is None else ~(kept & valid)
    return tally_pairs(ready, labels, skipped, targets.to(torch.int64) == ignore_index, num_classes)


def _tally(block: Block, top: Tensor) -> Tensor:
    predictions = predict(block.logits, top, block.scratch)
    return tally_pairs(predictions, block.labels, block.skipped, block.ignored, block.logits.shape[1], reuse=True)


def _exponentials(block: Block, top: Tensor) -> None:
    """Write e_c of every logit; `top` is the largest of each cell, (rows, 1, columns)."""
    # the difference first, so that its digits are kept; on the CPU exp2 takes a third of the time of exp
    torch.sub(block.logits, top, out=block.scratch).mul_(_LOG2_E).exp2_()


def _focal_block(block: Block, alpha: Tensor, gamma: float) -> Tensor:
    """Return the loss (rows * columns,) of a block's cells, 0 where skipped; write their gradient where it is wanted.

    The scratch memory holds the exponentials. Beside them a cell takes four floats at most, or two while `at` is held.
    """
    hit, others = _hit_and_others(block)  # e_t, R
    total = others + hit  # S
    surprise, finite = _surprise(block, hit, others, total)
    slope = None if block.gradient is None else torch.addcmul(others, hit, finite, value=gamma, out=hit)
    del hit, finite
    miss = others.div_(total)
    if slope is not None:
        slope.div_(total).div_(total)
    del total
    # where q is below the floor, R and with it loss and gradient come to 0 whatever its power is
    power = miss if gamma == 2 else miss.clamp(min=_floor(miss)).pow_(gamma - 1)
    # the weights of the cells are memory of our own
    focus = alpha.index_select(0, block.labels.reshape(-1)).mul_(power) if alpha.dim() == 1 else alpha * power
    loss = miss.mul_(focus).mul_(surprise)
    if block.skipped is not None:
        loss.masked_fill_(block.skipped.reshape(-1), 0.0)
    if slope is not None:
        _write_gradient(block, slope.mul_(focus))
    return loss


def _hit_and_others(block: Block) -> tuple[Tensor, Tensor]:
    """Return e_t and R of the cells (rows * columns,); put -R, or 0 without a gradient, in the target's place."""
    at, powers = block.at, block.scratch
    flat = powers.view(-1)
    hit = flat.index_select(0, at)
    flat.scatter_(0, at, torch.zeros_like(hit))
    others = powers.sum(1).view(-1)
    if block.gradient is not None:
        flat.scatter_(0, at, others.neg_())
        others.neg_()
    return hit, others


def _surprise(block: Block, hit: Tensor, others: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Return -log p of the targets (rows * columns,), also where e_t underflows; and the same held off infinity."""
    surprise, floor = (others / hit).log1p_(), _floor(hit)
    if hit.device.type == "cpu" and hit.min().item() >= floor:
        return surprise, surprise
    top = block.logits.amax(1, keepdim=True)
    gap = (top - block.logits.gather(1, block.labels.unsqueeze(1))).view(-1)
    surprise = torch.where(hit >= floor, surprise, gap + total.log())  # such a target is not the largest: S >= 1
    return surprise, surprise.clamp(max=torch.finfo(hit.dtype).max)


def _write_gradient(block: Block, slope: Tensor) -> None:
    """Write the powers, with -R in the target's place, times the slope a (rows * columns,); 0 where skipped."""
    assert block.gradient is not None
    powers = block.scratch
    rows, _, columns = powers.shape
    slope = slope.view(rows, 1, columns)
    if block.skipped is not None:
        skipped = block.skipped.unsqueeze(1)
        slope.masked_fill_(skipped, 0.0)
        if slope.device.type != "cpu" or powers.isnan().any():
            # 0 * NaN: an ignored cell passes nothing on whatever its logits hold
            powers.masked_fill_(skipped, 0.0)
    if powers is block.gradient:
        powers.mul_(slope)
    else:
        torch.mul(powers, slope, out=block.gradient)


def _floor(like: Tensor) -> float:
    """Return a number far below the resolution of loss and gradient, and far enough above 0 to divide by."""
    limits = torch.finfo(like.dtype)
    return limits.tiny / limits.eps
