"""Blocks of logits, labels, masks and gradient, each with scratch memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..checks import compute_dtype
from .layout import Fold, Where, cut


@dataclass
class Block:
    """Some cells of a batch: rows of its outer and columns of its inner dimension."""

    where: Where
    logits: Tensor  # (rows, C, columns) in the dtype of the arithmetic
    labels: Tensor  # (rows, columns) int64, 0 where a cell is skipped
    skipped: Tensor | None  # (rows, columns) bool; None where every cell counts
    ignored: Tensor | None  # of the skipped cells, those whose label is `ignore_index`
    gradient: Tensor | None  # (rows, C, columns), to be written
    scratch: Tensor  # (rows, C, columns) contiguous, to work in; the gradient itself where that will do

    @property
    def at(self) -> Tensor:
        """Indices into the scratch memory of the target of each cell, (rows * columns,)."""
        rows, classes, columns = self.scratch.shape
        device = self.labels.device
        # kept on the CPU, where a block is a part of the cells: the next step asks for the same
        starts = (_kept_starts if device.type == "cpu" else _starts)(rows, classes, columns, device)
        return torch.add(starts, self.labels, alpha=columns).view(-1)


def blocks(
    fold: Fold,
    logits: Tensor,  # (outer, C, inner)
    targets: Tensor,  # (B, *)
    kept: Tensor | None,  # (B, *) bool
    ignore_index: int,
    gradient: Tensor | None = None,  # (outer, C, inner)
) -> Iterator[Block]:
    """Yield the blocks in order; on a GPU one of all cells, because launches cost more than traffic there."""
    dtype, cells = compute_dtype(logits), fold.cells(targets)
    counted = None if kept is None else fold.cells(kept)
    scratch = wide = None
    for where in fold.blocks(whole=logits.device.type != "cpu"):
        part, label, slope = logits, cells, gradient
        if where is not None:
            part, label, slope = cut(logits, where), cut(cells, where), None if slope is None else cut(slope, where)
        # not where the logits wait in it
        if slope is not None and slope.dtype == dtype and slope.is_contiguous() and slope.data_ptr() != part.data_ptr():
            scratch = slope
        elif scratch is None or scratch.shape != part.shape:
            scratch = torch.empty(part.shape, dtype=dtype, device=logits.device)
        if part.dtype != dtype or part.stride(2) != 1:
            wide = torch.empty_like(scratch) if wide is None or wide.shape != part.shape else wide
            part = wide.copy_(part)
        label = label if label.dtype == torch.int64 else label.to(torch.int64)
        skipped = ignored = None
        if counted is not None:
            skipped, ignored = ~cut(counted, where), label == ignore_index
            label = label.masked_fill(skipped, 0)
        yield Block(where, part, label, skipped, ignored, slope, scratch)


def _starts(rows: int, classes: int, columns: int, device: torch.device) -> Tensor:
    """Return the index of each cell's (rows, columns) logit of class 0 in a contiguous (rows, classes, columns)."""
    row = torch.arange(0, rows * classes * columns, classes * columns, device=device)
    return row.unsqueeze(1) + torch.arange(columns, device=device)


_kept_starts = lru_cache(maxsize=2)(_starts)
