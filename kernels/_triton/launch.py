"""Launch of a kernel: its arguments, the dimensions of its cells, its number of programs and its workspace."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

WARPS_PER_PROCESSOR = 16
"""Warps of all programs: about as many as the registers let run at once, so that one wave is enough."""
MOST_PROGRAMS = 2048
MOST_BINS = 512
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


@dataclass(frozen=True)
class Launch:
    """Kernel with all its arguments and options."""

    kernel: Any
    programs: int
    arguments: dict[str, Any]
    constants: dict[str, Any]
    num_warps: int
    max_registers: int | None = None
    """Limit of a thread; for NVIDIA only."""

    def options(self, nvidia: bool) -> dict[str, int]:
        """Return the options of the compiler."""
        bound = {"maxnreg": self.max_registers} if nvidia and self.max_registers is not None else {}
        return {"num_warps": self.num_warps, **bound}

    def run(self) -> None:
        """Start the kernel on the current stream of the device of its first tensor."""
        device = next(value.device for value in self.arguments.values() if isinstance(value, Tensor))
        options = self.options(nvidia=device.type == "cuda" and torch.version.hip is None)
        with on_device(device):
            self.kernel[(self.programs,)](**self.arguments, **self.constants, **options)


@dataclass(frozen=True)
class Workspace:
    """Memory in which programs pass results to the last program; ticket and counts are zeros between launches."""

    ticket: Tensor  # int64 scalar
    counts: Tensor  # (MOST_BINS,) int64
    losses: Tensor  # (MOST_PROGRAMS,) float32
    kepts: Tensor  # (MOST_PROGRAMS,) int32

    @classmethod
    def empty(cls, device: torch.device) -> Workspace:
        """Return a workspace of zeros."""
        words = torch.zeros(16 + MOST_BINS, dtype=torch.int64, device=device)  # the ticket on a cache line of its own
        return cls(
            words[0],
            words[16:],
            torch.empty(MOST_PROGRAMS, dtype=torch.float32, device=device),
            torch.empty(MOST_PROGRAMS, dtype=torch.int32, device=device),
        )


_workspaces: dict[torch.device, Workspace] = {}


def workspace(device: torch.device) -> Workspace:
    """Return the kept workspace of the device's default stream, whose launches run in order; a new one on others.

    Other streams may be captured, or draw their memory from a graph's pool, in which nothing may be kept.
    """
    if device.type == "meta" or (device.type == "cuda" and torch.cuda.current_stream(device).cuda_stream != 0):
        return Workspace.empty(device)
    if device not in _workspaces:
        _workspaces[device] = Workspace.empty(device)
    return _workspaces[device]


@lru_cache
def _processors(index: int) -> int:
    return int(torch.cuda.get_device_properties(index).multi_processor_count)


def programs_for(blocks: int, warps: int, device: torch.device) -> int:
    """Return the number of programs that share the blocks; without a GPU three, so that each has several blocks."""
    most = WARPS_PER_PROCESSOR // warps * _processors(device.index) if device.type == "cuda" else 3
    return max(1, min(blocks, most, MOST_PROGRAMS))


def power_of_two(number: int) -> int:
    """Return the smallest power of two that is at least `number`."""
    return 1 << max(number - 1, 0).bit_length()


def on_device(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context that starts kernels on the device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
