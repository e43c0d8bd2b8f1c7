"""Predicted classes and confusion counts in torch operators."""

from __future__ import annotations

import torch
from torch import Tensor


def predict(logits: Tensor, top: Tensor | None = None, scratch: Tensor | None = None) -> Tensor:
    """Return the predicted class (B, *) int64; the lowest index wins ties, and the first NaN wins over all.

    Args:
        logits: (B, C, *).
        top: the largest logit of each cell, (B, 1, *), where it is known.
        scratch: floats shaped as the logits, to write to.
    """
    if logits.device.type != "cpu" or logits.numel() == 0:
        return logits.max(1)[1]
    # on the CPU torch's max with indices takes one element at a time; amax, eq into floats and mul are vectorised
    top = logits.amax(1, keepdim=True) if top is None else top
    scratch = torch.empty(logits.shape, dtype=torch.float32, device=logits.device) if scratch is None else scratch
    classes = logits.shape[1]
    rank = torch.arange(classes, 0, -1, dtype=scratch.dtype, device=scratch.device).view(
        -1, *(1 for _ in logits.shape[2:])
    )
    first = torch.eq(logits, top, out=scratch).mul_(rank).amax(1)
    if first.min() == 0:  # NaN equals nothing
        return logits.max(1)[1]
    return first.neg_().add_(classes).to(torch.int64)


def empty_tally(num_classes: int, device: torch.device) -> Tensor:
    """Return the tally (C * C + 1,) of no cells."""
    return torch.zeros(num_classes**2 + 1, dtype=torch.int64, device=device)


def tally_pairs(
    predictions: Tensor,  # (*) int64
    labels: Tensor,  # (*) int64, 0 where a cell is skipped
    skipped: Tensor | None,  # (*) bool; None where every cell counts
    ignored: Tensor | None,  # (*) bool: of the skipped cells, those whose label is `ignore_index`
    num_classes: int,
    reuse: bool = False,
) -> Tensor:
    """Return the tally: confusion counts by rows, then the number of labels outside the classes that are not ignored.

    With `reuse` the predictions may be overwritten.
    """
    pairs = num_classes * num_classes
    index = torch.add(predictions, labels, alpha=num_classes, out=predictions if reuse else None)
    if skipped is not None and ignored is not None:
        # two more bins, so that no boolean selection has to wait for the device
        index = torch.where(skipped, pairs + ignored.to(torch.int64), index)
    index = index.reshape(-1)
    if index.device.type == "cpu":
        return torch.bincount(index, minlength=pairs + 2)[: pairs + 1]
    counts = torch.zeros(pairs + 2, dtype=torch.int64, device=index.device)
    return counts.scatter_add_(0, index, torch.ones_like(index))[: pairs + 1]
