"""Reference in plain PyTorch: the specification of the loss and the counts, which all implementations must match."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import (
    ClassWeights,
    Reduction,
    check_gamma,
    check_logits,
    checked_predictions,
    class_weight,
    compute_dtype,
    divisor,
    labels_and_mask,
)


def focal_loss_reference(
    logits: Tensor,
    targets: Tensor,
    weight: ClassWeights | None = None,
    gamma: float = 2.0,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor:
    """Weighted focal loss, -w_t (1 - p_t)^gamma log p_t, with p = softmax(logits) over dimension 1.

    Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 5, with the softmax in place of the sigmoid.
    Arguments, result and errors are those of `focal_loss`. Differentiable as often as wanted.
    """
    check_logits(logits, targets)
    check_gamma(gamma)
    labels, kept = labels_and_mask(targets, logits.shape[1], ignore_index)
    w = class_weight(weight, logits)

    # an ignored cell may hold NaN; masked here as well, so that 0 * NaN does not reach the gradient
    z = logits.to(compute_dtype(logits))
    if kept is not None:
        z = z.masked_fill(~kept.unsqueeze(1), 0.0)
    log_p = torch.log_softmax(z, dim=1).gather(1, labels.unsqueeze(1)).squeeze(1)  # (B, *)
    miss = -torch.expm1(log_p)  # 1 - p_t
    # for gamma < 1 the slope of miss^gamma is infinite at 0, where loss and gradient are 0
    certain = miss == 0
    focus = torch.where(certain, 0.0**gamma, miss.masked_fill(certain, 1.0) ** gamma)
    loss = -focus * log_p
    if w is not None:
        loss = w[labels] * loss
    if kept is not None:
        loss = loss.masked_fill(~kept, 0.0)
    by = divisor(loss, kept, reduction)
    return loss if reduction == "none" else loss.sum() / by


def confusion_counts_reference(
    logits: Tensor, targets: Tensor, ignore_index: int = -100, num_classes: int | None = None
) -> Tensor:
    """Return confusion counts (C, C) int64, row = target, column = prediction, one class pair at a time.

    Takes logits (B, C, *) or, with `num_classes`, ready integer predictions shaped as the targets; see
    `confusion_counts`.
    """
    if num_classes is None:
        check_logits(logits, targets)
        num_classes = logits.shape[1]
        predictions = logits.argmax(dim=1)
    else:
        predictions = logits
    labels, kept = labels_and_mask(targets, num_classes, ignore_index)
    predictions = checked_predictions(predictions, kept, num_classes)
    counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=targets.device)
    for target in range(num_classes):
        for prediction in range(num_classes):
            cells = (labels == target) & (predictions == prediction)
            counts[target, prediction] = (cells if kept is None else cells & kept).sum()
    return counts
