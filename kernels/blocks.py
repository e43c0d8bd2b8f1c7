"""Logits, labels, masks and gradient cut into blocks, each with the memory that is worked in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .arguments import compute_dtype
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
        """Where in the scratch memory the target of each cell lies, (rows * columns,)."""
        rows, classes, columns = self.scratch.shape
        # kept on the CPU, where a block is a part of the cells: the next step asks for the same
        starts = _kept_starts if self.labels.device.type == "cpu" else _starts
        return torch.add(starts(rows, classes, columns, self.labels.device), self.labels, alpha=columns).view(-1)


def blocks(
    fold: Fold,
    logits: Tensor,  # (outer, C, inner)
    targets: Tensor,  # (B, *)
    kept: Tensor | None,  # (B, *) bool
    ignore_index: int,
    gradient: Tensor | None = None,  # (outer, C, inner)
) -> Iterator[Block]:
    """The blocks in order; on a GPU one of all cells, where launches cost more than traffic."""
    labels, dtype = fold.cells(targets), compute_dtype(logits)
    counted = None if kept is None else fold.cells(kept)
    scratch = wide = logits.new_empty(0)
    for where in fold.blocks(whole=logits.device.type != "cpu"):
        part, label = cut(logits, where), cut(labels, where).to(torch.int64)
        slope = None if gradient is None else cut(gradient, where)
        # not where the logits wait in it
        if slope is not None and slope.dtype == dtype and slope.is_contiguous() and slope.data_ptr() != part.data_ptr():
            scratch = slope
        elif scratch.shape != part.shape:
            scratch = torch.empty(part.shape, dtype=dtype, device=logits.device)
        if part.dtype != dtype or part.stride(2) != 1:
            wide = wide if wide.shape == part.shape else torch.empty_like(scratch)
            part = wide.copy_(part)
        skipped = ignored = None
        if counted is not None:
            skipped, ignored = ~cut(counted, where), label == ignore_index
            label = label.masked_fill(skipped, 0)
        yield Block(where, part, label, skipped, ignored, slope, scratch)


def _starts(rows: int, classes: int, columns: int, device: torch.device) -> Tensor:
    """Where the logit of class 0 of each cell (rows, columns) lies in a contiguous (rows, classes, columns)."""
    row = torch.arange(0, rows * classes * columns, classes * columns, device=device)
    return row.unsqueeze(1) + torch.arange(columns, device=device)


_kept_starts = lru_cache(maxsize=2)(_starts)
