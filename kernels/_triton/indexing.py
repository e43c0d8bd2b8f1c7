"""Device functions: memory offset and label of each cell."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def block_of_cells(block, cells, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    """Return the numbers of a block's cells, and a mask of those that exist. WIDE for tensors from 2**31 cells on."""
    if WIDE:
        block = tl.cast(block, tl.int64)
    cell = block * BLOCK + tl.arange(0, BLOCK)
    return cell, cell < cells


@triton.jit
def offset_of(cell, sizes, strides):
    """Return the offset of each cell in a tensor whose cells have these sizes, outermost first, and these strides."""
    offset = tl.zeros(cell.shape, tl.int64)
    DIMS: tl.constexpr = len(sizes)
    for i in tl.static_range(DIMS - 1):
        # widened before it is multiplied: a stride may pass 2**31
        offset += (cell % sizes[DIMS - 1 - i]).to(tl.int64) * strides[DIMS - 1 - i]
        cell = cell // sizes[DIMS - 1 - i]
    return offset + cell.to(tl.int64) * strides[0]


@triton.jit
def load_labels(targets_ptr, offset, there, ignore_index, C: tl.constexpr):
    """Return int32 labels, 0 where not usable; masks of the cells not ignored and of those with a label in 0..C-1."""
    raw = tl.load(targets_ptr + offset, mask=there, other=0).to(tl.int64)
    kept = there & (raw != ignore_index)
    usable = kept & (raw >= 0) & (raw < C)
    return tl.where(usable, raw, 0).to(tl.int32), kept, usable
