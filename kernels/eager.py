"""The fused path without a compiler: the gradient is written over the log-softmax during the forward pass.

With l = log p_t, q = 1 - p_t and L = -w q^gamma l:

    dL/dl   = -w q^gamma (1 - gamma p_t l / q)
    dL/dz_c = (dL/dl) ([c = t] - p_c)

so one buffer of the logits' size serves first as log-softmax and then as gradient. p_t l / q tends to -1 as p_t tends
to 1 and to 0 as p_t tends to 0, which keeps every gamma >= 0 finite, and [c = t] - p_c is q itself at the target, free
of cancellation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .arguments import compute_dtype
from .reduction import Reduction, divisor, reduce_loss


def focal_loss_eager(
    logits: Tensor,  # (B, C, *)
    labels: Tensor,  # (B, *) int64, 0 where not kept
    kept: Tensor,  # (B, *) bool
    weight: Tensor | None,  # (C,)
    gamma: float,
    reduction: Reduction,
) -> Tensor:
    """Loss of checked arguments, differentiable once in the logits."""
    if torch.is_grad_enabled() and logits.requires_grad:
        loss, _ = _FocalLoss.apply(logits, labels, kept, weight, gamma, reduction)  # type: ignore[no-untyped-call]
        return loss  # type: ignore[no-any-return]
    return _loss_and_gradient(logits, labels, kept, weight, gamma, reduction, want_gradient=False)[0]


def confusion_counts_eager(predictions: Tensor, labels: Tensor, kept: Tensor, num_classes: int) -> Tensor:
    """Counts (C, C) int64 of checked predictions (B, *) against labels (B, *)."""
    pairs = num_classes * num_classes
    # cells that are not kept fall into one more bin, so that no boolean selection has to wait for the device
    index = (labels * num_classes + predictions).masked_fill_(~kept, pairs).reshape(-1)
    if index.device.type == "cpu":
        counts = torch.bincount(index, minlength=pairs + 1)
    else:
        counts = torch.zeros(pairs + 1, dtype=torch.int64, device=index.device)
        counts.scatter_add_(0, index, torch.ones_like(index))
    return counts[:pairs].reshape(num_classes, num_classes)


def predict(logits: Tensor) -> Tensor:
    """Predicted class (B, *) int64 of logits (B, C, *); the lowest index wins ties."""
    # max(1) is several times faster than argmax on channels-first logits, and promises the first index just the same
    return logits.max(1)[1]


def _loss_and_gradient(
    logits: Tensor,
    labels: Tensor,
    kept: Tensor,
    weight: Tensor | None,
    gamma: float,
    reduction: Reduction,
    want_gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    dtype = compute_dtype(logits)
    log_p = torch.log_softmax(logits, dim=1, dtype=dtype)
    index = labels.unsqueeze(1)
    log_pt = log_p.gather(1, index).squeeze(1)  # (B, *)
    miss = -torch.expm1(log_pt)
    focus = miss**gamma
    if weight is not None:
        focus = focus * weight[labels]
    loss = (-focus * log_pt).masked_fill_(~kept, 0.0)
    reduced = reduce_loss(loss, kept, reduction)
    if not want_gradient:
        return reduced, None

    p_t = log_pt.exp()
    ratio = torch.where(p_t > 0, p_t * log_pt, 0.0)
    ratio = torch.where(miss > 0, ratio / miss, -1.0)
    slope = focus * (1.0 - gamma * ratio) / divisor(kept, reduction)  # -dL/dl
    slope.masked_fill_(~kept, 0.0)
    gradient = log_p.exp_().mul_(slope.unsqueeze(1))
    gradient.scatter_(1, index, (-slope * miss).unsqueeze(1))
    if kept.device.type != "cpu" or not kept.all():
        # 0 * NaN: an ignored cell passes nothing on whatever its logits hold
        gradient.masked_fill_(~kept.unsqueeze(1), 0.0)
    # not yet in the logits' dtype: rounded before it is scaled, float16 would lose what a loss scale is there to save
    return reduced, gradient


class _FocalLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        logits: Tensor, labels: Tensor, kept: Tensor, weight: Tensor | None, gamma: float, reduction: Reduction
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
