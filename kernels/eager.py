"""The fused path without a compiler: the gradient is written over the log-softmax during the forward pass.

With l = log p_t, q = 1 - p_t and L = -w q^gamma l:

    dL/dl   = -w q^gamma (1 - gamma p_t l / q)
    dL/dz_c = (dL/dl) ([c = t] - p_c)

so one buffer of the logits' size serves first as log-softmax and then as gradient. [c = t] - p_c is q itself at the
target, free of cancellation. p_t l / q tends to 0 with p_t, and to -1 as p_t tends to 1, where q^gamma or gamma is 0
and makes it meaningless: with l and q held off -inf and 0, every gamma >= 0 stays finite.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .arguments import compute_dtype
from .reduction import Reduction, divisor, reduce_loss

BLOCK = 1 << 18
"""Logits that predictions are taken of at a time; the scratch buffer stays in the cache."""


def focal_loss_eager(
    logits: Tensor,  # (B, C, *)
    labels: Tensor,  # (B, *) int64, 0 where not kept
    kept: Tensor | None,  # (B, *) bool, None where every cell counts
    weight: Tensor | None,  # (C,)
    gamma: float,
    reduction: Reduction,
) -> Tensor:
    """Loss of checked arguments, differentiable once in the logits."""
    if torch.is_grad_enabled() and logits.requires_grad:
        loss, _ = _FocalLoss.apply(logits, labels, kept, weight, gamma, reduction)  # type: ignore[no-untyped-call]
        return loss  # type: ignore[no-any-return]
    return _loss_and_gradient(logits, labels, kept, weight, gamma, reduction, want_gradient=False)[0]


def confusion_counts_eager(predictions: Tensor, labels: Tensor, kept: Tensor | None, num_classes: int) -> Tensor:
    """Counts (C, C) int64 of checked predictions (B, *) against labels (B, *)."""
    pairs = num_classes * num_classes
    index = labels * num_classes + predictions
    if kept is not None:
        # one more bin, so that no boolean selection has to wait for the device
        index.masked_fill_(~kept, pairs)
    index = index.reshape(-1)
    if index.device.type == "cpu":
        counts = torch.bincount(index, minlength=pairs + 1)
    else:
        counts = torch.zeros(pairs + 1, dtype=torch.int64, device=index.device)
        counts.scatter_add_(0, index, torch.ones_like(index))
    return counts[:pairs].reshape(num_classes, num_classes)


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


def _loss_and_gradient(
    logits: Tensor,
    labels: Tensor,
    kept: Tensor | None,
    weight: Tensor | None,
    gamma: float,
    reduction: Reduction,
    want_gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    dtype = compute_dtype(logits)
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
    if not want_gradient:
        return reduced, None

    limits = torch.finfo(dtype)
    ratio = log_pt.exp() * log_pt.clamp(min=limits.min) / miss.clamp(min=limits.tiny)
    slope = focus * (1.0 - gamma * ratio) / divisor(loss, kept, reduction)  # -dL/dl
    if kept is not None:
        slope.masked_fill_(~kept, 0.0)
    gradient = log_p.exp_().mul_(slope.unsqueeze(1))
    gradient.scatter_(1, index, (slope * miss).neg_().unsqueeze(1))
    if kept is not None:
        # 0 * NaN: an ignored cell passes nothing on whatever its logits hold
        gradient.masked_fill_(~kept.unsqueeze(1), 0.0)
    # not yet in the logits' dtype: rounded before it is scaled, float16 would lose what a loss scale is there to save
    return reduced, gradient


class _FocalLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        logits: Tensor, labels: Tensor, kept: Tensor | None, weight: Tensor | None, gamma: float, reduction: Reduction
    ) -> tuple[Tensor, Tensor]:
        loss, gradient = _loss_and_gradient(logits, labels, kept, weight, gamma, reduction, want_gradient=True)
        assert gradient is not None
        return loss, gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        gradient = output[1]
        ctx.mark_non_differentiable(gradient)
        ctx.set_materialize_grads(False)  # else the unused second output is given zeros of the logits' size
        ctx.save_for_backward(gradient)
        ctx.dtype = inputs[0].dtype
        ctx.per_cell = inputs[5] == "none"

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if upstream is None:
            return None, None, None, None, None, None
        if torch.is_grad_enabled():  # only under create_graph
            raise RuntimeError(
                "focal_loss keeps its gradient, not the graph of it, so a second derivative would be silently zero. "
                "Use backend='reference' for double backward."
            )
        (gradient,) = ctx.saved_tensors
        scale = upstream.unsqueeze(1) if ctx.per_cell else upstream
        # loss.backward() needs no second pass over the buffer; on a GPU, looking would stall the stream
        if ctx.per_cell or scale.device.type != "cpu" or scale != 1:
            gradient = gradient * scale
        return gradient.to(ctx.dtype), None, None, None, None, None
