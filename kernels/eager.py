"""The fused path without a compiler: loss, analytic gradient and counts, one block of logits after another.

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

from .arguments import cells_that_count, checked_predictions, compute_dtype, labels_and_mask
from .blocks import Block, blocks
from .layout import cut, folded
from .reduction import Reduction, divisor
from .tally import empty_tally, predict, tally_pairs

_LOG2_E = math.log2(math.e)


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
    kept = cells_that_count(targets, logits.shape[1], ignore_index)
    by = divisor(targets, kept, reduction)
    one = torch.ones((), dtype=compute_dtype(logits), device=logits.device)
    alpha = one if weight is None else weight
    late = logits.dtype == torch.float16
    if not late:
        alpha = alpha / by
    gradient = torch.empty_like(logits) if want_gradient else None
    fold, z, slopes = folded(logits, gradient)
    per_cell = reduction == "none"
    losses = fold.empty_cells(targets.shape, one) if per_cell else None
    total: Tensor | None = None
    tally = empty_tally(logits.shape[1] if want_counts else None, logits.device)
    for block in blocks(fold, z, targets, kept, ignore_index, slopes):
        top = block.logits.amax(1, keepdim=True)
        if want_counts:
            tally += _tally(block, top)
        cells = _focal_block(block, top, alpha, gamma)
        if losses is None:
            total = cells.sum() if total is None else total.add_(cells.sum())
        else:
            cut(fold.cells(losses), block.where).copy_(cells.view(block.labels.shape))
    loss = torch.zeros_like(one) if total is None else total
    if losses is not None:
        loss = losses.contiguous()
    return (
        loss / by if late else loss,
        logits.new_empty(0) if gradient is None else gradient,
        one / by if late else one,
        tally,
    )


def confusion(logits: Tensor, targets: Tensor, ignore_index: int) -> Tensor:
    """Tally (C * C + 1,) of logits (B, C, *) against targets (B, *)."""
    kept = cells_that_count(targets, logits.shape[1], ignore_index)
    tally = empty_tally(logits.shape[1], logits.device)
    fold, z, _ = folded(logits, None)
    for block in blocks(fold, z, targets, kept, ignore_index):
        tally += _tally(block, block.logits.amax(1, keepdim=True))
    return tally


def confusion_ready(predictions: Tensor, targets: Tensor, ignore_index: int, num_classes: int) -> Tensor:
    """Tally (C * C + 1,) of predictions (B, *) against targets (B, *)."""
    labels, kept = labels_and_mask(targets, num_classes, ignore_index)
    ready = checked_predictions(predictions, kept, num_classes)
    valid = ready >= 0
    skipped = ~valid if kept is None else ~(kept & valid)
    return tally_pairs(ready, labels, skipped, targets.to(torch.int64) == ignore_index, num_classes)


def _tally(block: Block, top: Tensor) -> Tensor:
    predictions = predict(block.logits, top, block.scratch)
    return tally_pairs(predictions, block.labels, block.skipped, block.ignored, block.logits.shape[1])


def _focal_block(block: Block, top: Tensor, alpha: Tensor, gamma: float) -> Tensor:
    """Loss (rows * columns,) of the cells of a block, 0 where skipped; writes their gradient where one is wanted."""
    at, powers = block.at, block.scratch
    flat = powers.view(-1)
    # the difference first, so that its digits are kept; on the CPU exp2 takes a third of the time of exp
    torch.sub(block.logits, top, out=powers).mul_(_LOG2_E).exp2_()
    hit = flat.index_select(0, at)  # e_t
    flat.scatter_(0, at, torch.zeros_like(hit))
    others = powers.sum(1).view(-1)  # R
    total = others + hit  # S
    surprise, finite = _surprise(block, top, hit, others, total)
    miss = others / total
    if alpha.dim() == 1:
        alpha = alpha.index_select(0, block.labels.reshape(-1))
    # where q is below the floor, R and with it loss and gradient come to 0 whatever its power is
    alpha = alpha * (miss if gamma == 2 else miss.clamp(min=_floor(miss)).pow_(gamma - 1))
    loss = miss.mul_(alpha).mul_(surprise)
    if block.skipped is not None:
        loss.masked_fill_(block.skipped.reshape(-1), 0.0)
    if block.gradient is not None:
        slope = torch.addcmul(others, hit, finite, value=gamma).mul_(alpha).div_(total.square_())
        flat.scatter_(0, at, others.neg_())
        _write_gradient(block, slope)
    return loss


def _surprise(block: Block, top: Tensor, hit: Tensor, others: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """-log p of the targets (rows * columns,), also where e_t underflows; and the same held off infinity."""
    surprise, floor = (others / hit).log1p_(), _floor(hit)
    if hit.device.type == "cpu" and hit.min().item() >= floor:
        return surprise, surprise
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
    torch.mul(powers, slope, out=block.gradient)


def _floor(like: Tensor) -> float:
    """Far below what loss or gradient can show, and far enough above 0 to be divided by."""
    limits = torch.finfo(like.dtype)
    return limits.tiny / limits.eps
