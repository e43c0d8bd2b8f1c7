"""Public functions of the loss and the counts: check the arguments, choose the backend, call it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import custom_op
from .backend import Backend, choose_backend
from .checks import (
    ClassWeights,
    FocalSetting,
    Reduction,
    check_gamma,
    check_logits,
    check_reduction,
    check_targets,
    check_tensor,
    class_weight,
    is_integer,
)
from .reference import confusion_counts_reference, focal_loss_reference

__all__ = ["Reduction", "confusion_counts", "focal_loss", "focal_loss_with_counts"]


def focal_loss(
    logits: Tensor,
    targets: Tensor,
    weight: ClassWeights | None = None,
    gamma: float = 2.0,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
) -> Tensor:
    """Weighted focal loss, -w_t (1 - p_t)^gamma log p_t, with p = softmax(logits) over dimension 1.

    Args:
        logits: (B, C) or (B, C, *), float16, bfloat16, float32 or float64, any strides; never written to.
        targets: (B) or (B, *), class labels in any integer dtype.
        weight: (C,), a constant: a tensor on the logits' device, an array or a list; None weighs every class 1.
        gamma: at least 0; 0 gives weighted cross-entropy.
        ignore_index: cells with this label add nothing to the loss and get a zero gradient.
        reduction: `none` (B, *), 0 at ignored cells; `sum`; `mean`, the sum over the number of cells not ignored (not
            over their weights, unlike torch's weighted cross-entropy), 0 if there is none; `batch`, the sum over B.
        backend: the implementation; see `choose_backend`.

    Returns:
        The loss, float32 for logits up to float32 and float64 for float64. Its gradient has the logits' dtype. NaN
        logits give a NaN loss.

    The returned gradient is the saved buffer: modifying it in place before a second backward pass raises torch's error.

    Raises:
        TypeError: logits or targets are no tensors.
        ValueError: shapes, dtypes, devices, gamma, reduction or backend do not fit; on the CPU also a label outside
            0..C-1 that is not ignored. On a GPU such a cell is skipped: the counts of `focal_loss_with_counts` then sum
            to less than the number of cells that are not ignored.
        RuntimeError: double backward and forward-mode derivatives, which the reference backend supports; a compiled
            kernel that did not build.

    Source: Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 5, with softmax in place of sigmoid.
    """
    return _focal_loss(logits, targets, weight, gamma, ignore_index, reduction, backend, want_counts=False)[0]


def confusion_counts(
    logits: Tensor,
    targets: Tensor,
    ignore_index: int = -100,
    backend: Backend = "auto",
    num_classes: int | None = None,
) -> Tensor:
    """Return the confusion counts of logits or ready predictions.

    Args:
        logits: (B, C) or (B, C, *) floats, of which the largest is the prediction and the lowest index wins ties; or,
            with `num_classes`, ready predictions (B) or (B, *) in any integer dtype.
        targets: (B) or (B, *), class labels in any integer dtype.
        ignore_index: cells whose target is this label count nowhere.
        backend: the implementation; see `choose_backend`.
        num_classes: C, needed with ready predictions and only there.

    Returns:
        (C, C) int64 on the inputs' device; row = target, column = prediction.

    Raises:
        ValueError: as `focal_loss`; also a ready prediction outside 0..C-1 at a cell that counts (CPU; skipped on a
        GPU).
    """
    check_tensor(logits, "logits")
    ready = is_integer(logits)
    if ready:
        if num_classes is None:
            raise ValueError(f"predictions have dtype {logits.dtype}. Pass num_classes with ready predictions.")
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}. Pass at least 1.")
        check_targets(targets, expected=tuple(logits.shape), device=logits.device)
    else:
        check_logits(logits, targets)
        if num_classes not in (None, logits.shape[1]):
            raise ValueError(f"num_classes is {num_classes}, but the logits have {logits.shape[1]} classes.")
    chosen = choose_backend(backend, logits).name
    classes = num_classes if ready and num_classes is not None else logits.shape[1]
    if chosen == "reference":
        return confusion_counts_reference(logits, targets, ignore_index, classes if ready else None)
    logits, targets = logits.resolve_neg(), targets.resolve_neg()  # the implementations read memory as it lies
    if ready:
        tally = custom_op.confusion_counts_ready(logits, targets, ignore_index, classes, chosen)
    else:
        tally = custom_op.confusion_counts(logits.detach(), targets, ignore_index, chosen)
    return _counts(tally, classes)


def focal_loss_with_counts(
    logits: Tensor,
    targets: Tensor,
    weight: ClassWeights | None = None,
    gamma: float = 2.0,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """`focal_loss` and `confusion_counts` of the same logits in one call: (loss, counts).

    Arguments and errors are those of `focal_loss`. The counts carry no gradient.
    """
    loss, tally = _focal_loss(logits, targets, weight, gamma, ignore_index, reduction, backend, want_counts=True)
    assert tally is not None
    return loss, _counts(tally, logits.shape[1])


def _focal_loss(
    logits: Tensor,
    targets: Tensor,
    weight: ClassWeights | None,
    gamma: float,
    ignore_index: int,
    reduction: Reduction,
    backend: Backend,
    want_counts: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return loss and tally; no tally unless wanted."""
    check_logits(logits, targets)
    chosen = choose_backend(backend, logits).name
    if chosen == "reference":
        loss = focal_loss_reference(logits, targets, weight, gamma, ignore_index, reduction)
        counts = confusion_counts_reference(logits.detach(), targets, ignore_index) if want_counts else None
        return loss, counts
    check_gamma(gamma)
    check_reduction(reduction)
    if not torch.compiler.is_compiling() and _has_tangent(logits):
        raise RuntimeError(
            "focal_loss has no forward-mode derivative, which would be silently zero. Use backend='reference'."
        )
    logits, targets = logits.resolve_neg(), targets.resolve_neg()  # the implementations read memory as it lies
    learns = torch.is_grad_enabled() and logits.requires_grad
    setting = FocalSetting(class_weight(weight, logits), gamma, ignore_index, reduction, learns, want_counts)
    return custom_op.focal_loss_and_tally(logits, targets, setting, chosen)


def _has_tangent(logits: Tensor) -> bool:
    return forward_ad.unpack_dual(logits).tangent is not None  # type: ignore[no-untyped-call]


def _counts(tally: Tensor, classes: int) -> Tensor:
    """Return the confusion counts (C, C) of a tally."""
    return tally[: classes * classes].view(classes, classes)
