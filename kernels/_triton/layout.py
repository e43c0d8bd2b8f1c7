"""Common dimensions of the cells of several tensors, merged where all tensors allow it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

WIDE_FROM = 2**31 - 2**16
"""Cells from which on their numbers need 64 bits; a block's last number lies below 2**16 past the last cell."""


@dataclass(frozen=True)
class Cells:
    """Sizes and strides of the cells of tensors (B, *), or (B, C, *) without their class dimension."""

    count: int
    sizes: tuple[int, ...]
    """Sizes of the merged dimensions, outermost first; at least one."""
    strides: tuple[tuple[int, ...], ...]
    """Strides of each tensor along the merged dimensions."""

    @classmethod
    def from_tensors(cls, *tensors: Tensor, by_class: tuple[bool, ...]) -> Cells:
        """Merge the dimensions of tensors with the same cells; `by_class` says which have a class dimension, 1.

        Channels last or without trailing dimensions, one dimension is left; contiguous, the batch and one more.
        """
        kept = [
            tuple(d for d in range(tensor.dim()) if not (classes and d == 1))
            for tensor, classes in zip(tensors, by_class, strict=True)
        ]
        shape = [tensors[0].shape[d] for d in kept[0]]
        strides = [[tensor.stride(d) for d in dims] for tensor, dims in zip(tensors, kept, strict=True)]
        merged: list[tuple[int, list[int]]] = []
        for i, size in enumerate(shape):
            steps = [of_tensor[i] for of_tensor in strides]
            if size == 1 and len(shape) > 1:
                continue
            if merged and all(outer == size * inner for outer, inner in zip(merged[-1][1], steps, strict=True)):
                merged[-1] = (merged[-1][0] * size, steps)
            else:
                merged.append((size, steps))
        if not merged:  # every dimension has size 1
            merged = [(1, [0] * len(tensors))]
        count = 1
        for size, _ in merged:
            count *= size
        sizes = tuple(size for size, _ in merged)
        return cls(count, sizes, tuple(tuple(step[t] for _, step in merged) for t in range(len(tensors))))

    @property
    def wide(self) -> bool:
        """True where the numbers of the cells need 64 bits."""
        return self.count >= WIDE_FROM
