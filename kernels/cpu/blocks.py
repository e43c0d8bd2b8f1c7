"""Blocks of cells: logits of any strides as (outer, C, inner), cut so that a block fits the cache of one core."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import torch
from torch import Tensor

from ..checks import compute_dtype

BLOCK = 1 << 18
"""Logits in a block, for one thread: enough that the calls cost little, few enough for the caches of one core."""

Where: TypeAlias = "tuple[slice, slice] | None"
"""Rows of the outer and columns of the inner dimension; None is all of both."""

_VECTOR = 16


@dataclass(frozen=True)
class Fold:
    """Order of a tensor's dimensions in memory: those outside the classes, and those inside.

    Contiguous logits fold to (B, C, cells of one sample), channels-last ones to (1, C, all cells): a class that is
    innermost in memory would leave nothing to vectorise over.
    """

    outer: int
    classes: int
    inner: int
    order: tuple[int, ...] | None  # the dimensions of (B, *) from the outermost in memory on; None where as they are
    outer_dims: int  # how many of them lie outside the classes

    @staticmethod
    def from_logits(logits: Tensor) -> Fold:  # (B, C, *)
        """Return the fold of a tensor's memory; `logits` gives a view of a dense tensor."""
        return _fold(logits.shape, logits.stride(), logits.is_contiguous())

    def logits(self, tensor: Tensor) -> Tensor:
        """Return (B, C, *) as (outer, C, inner): a view of a tensor with the folded strides, else maybe a copy."""
        if self.order is not None:
            dims = [dim + 1 if dim else 0 for dim in self.order]
            tensor = tensor.permute(*dims[: self.outer_dims], 1, *dims[self.outer_dims :])
        return tensor.reshape(self.outer, self.classes, self.inner)

    def cells(self, tensor: Tensor) -> Tensor:
        """Return (B, *) as (outer, inner); a view of a tensor whose dimensions have this order in memory."""
        if self.order is not None:
            tensor = tensor.permute(self.order)
        return tensor.reshape(self.outer, self.inner)

    def empty_cells(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return new memory (B, *), typed and placed as `like`, of which `cells` gives a view."""
        order = range(len(shape)) if self.order is None else self.order
        return torch.empty_permuted(shape, tuple(order), dtype=like.dtype, device=like.device)

    def blocks(self, whole: bool) -> Sequence[Where]:
        """Return the places of the blocks in order; with `whole` one block of all. Empty where there are no cells."""
        size = self.outer * self.classes * self.inner
        # each call wakes the other threads and waits for them, which on a busy machine takes far longer than the call:
        # eight blocks then, which keep what is held beside the logits small
        limit = BLOCK if torch.get_num_threads() == 1 else max(BLOCK, size // 8)
        if whole or size <= limit:
            return (None,) if size else ()
        columns = min(self.inner, max(1, limit // self.classes // _VECTOR) * _VECTOR)
        rows = max(1, limit // (self.classes * columns))
        return [
            (slice(row, row + rows), slice(column, column + columns))
            for row in range(0, self.outer, rows)
            for column in range(0, self.inner, columns)
        ]


@lru_cache(maxsize=64)  # the next step asks for the same
def _fold(sizes: tuple[int, ...], strides: tuple[int, ...], contiguous: bool) -> Fold:
    inner = math.prod(sizes[2:])
    if inner != 1 and contiguous:
        return Fold(sizes[0], sizes[1], inner, None, 1)
    dims = sorted((0, *range(2, len(sizes))), key=lambda dim: -strides[dim])
    outer_dims = sum(strides[dim] > strides[1] for dim in dims)
    if math.prod(sizes[dim] for dim in dims[outer_dims:]) == 1:
        outer_dims = 0
    order = tuple(max(dim - 1, 0) for dim in dims)
    outer = math.prod(sizes[dim] for dim in dims[:outer_dims])
    return Fold(outer, sizes[1], math.prod(sizes[dim] for dim in dims[outer_dims:]), order, outer_dims)


def folded(logits: Tensor, gradient: Tensor | None) -> tuple[Fold, Tensor, Tensor | None]:
    """Return the fold of the gradient, or else of the logits, and both tensors folded, the gradient as a view.

    Logits cut out of a larger tensor are copied to the memory of their gradient; each part of it is read before it is
    written.
    """
    if gradient is None:
        fold = Fold.from_logits(logits)
        return fold, fold.logits(logits), None
    fold = Fold.from_logits(gradient)
    source = logits if logits.stride() == gradient.stride() else gradient.copy_(logits)
    return fold, fold.logits(source), fold.logits(gradient)


def cut(tensor: Tensor, where: Where) -> Tensor:
    """Return the part of a tensor (outer, ..., inner)."""
    return tensor if where is None else tensor[where[0], ..., where[1]]


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
