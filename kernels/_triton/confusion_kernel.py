"""Kernel of the confusion counts alone, from logits or from ready predictions."""

from __future__ import annotations

import triton
import triton.language as tl

from .confusion_partials import collect, count, is_last, pair_of, publish
from .focal_kernel import larger
from .indexing import block_of_cells, load_labels, offset_of


@triton.jit
def _confusion_kernel(
    values_ptr,  # logits (B, C, *), or with READY predictions (B, *) in any integer, by stride
    targets_ptr,  # (B, *) by stride, any integer
    tally_ptr,  # (C * C + 1,) int64
    ticket_ptr,  # int64 scalar, 0 between launches
    counts_ptr,  # (BINS,) int64, 0 between launches
    cells,
    sizes,  # of the cells' dimensions, outermost first, and the strides along them
    values_strides,
    targets_strides,
    class_stride,
    ignore_index,
    C: tl.constexpr,
    READY: tl.constexpr,
    UNROLLED: tl.constexpr,
    BINS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    if WIDE:
        cells = tl.cast(cells, tl.int64)  # 32 bits may not hold the end of the last block
    histogram = tl.zeros([BINS if BINS > 0 else 1], tl.int32)
    class_stride = tl.cast(class_stride, tl.int64)  # which may be a constant, 1
    for block in range(tl.program_id(0), tl.cdiv(cells, BLOCK), tl.num_programs(0)):
        cell, there = block_of_cells(block, cells, BLOCK, WIDE)
        value_ptr = values_ptr + offset_of(cell, sizes, values_strides)
        label, kept, usable = load_labels(targets_ptr, offset_of(cell, sizes, targets_strides), there, ignore_index, C)
        if READY:
            ready = tl.load(value_ptr, mask=there, other=0).to(tl.int64)
            usable &= (ready >= 0) & (ready < C)
            predicted = tl.where(usable, ready, 0).to(tl.int32)
        else:
            top, predicted = tl.load(value_ptr, mask=there, other=0.0).to(tl.float32), tl.zeros([BLOCK], tl.int32)
            if UNROLLED:
                for c in tl.static_range(1, C):
                    z = tl.load(value_ptr + c * class_stride, mask=there, other=0.0).to(tl.float32)
                    top, predicted = larger(top, predicted, z, c)
            else:
                for c in tl.range(1, C, loop_unroll_factor=8):
                    z = tl.load(value_ptr + c * class_stride, mask=there, other=0.0).to(tl.float32)
                    top, predicted = larger(top, predicted, z, c)
        histogram = count(histogram, tally_ptr, pair_of(label, predicted, kept, usable, C), C, BINS)

    if BINS > 0:
        if is_last(ticket_ptr, publish(histogram, counts_ptr, C, BINS)):
            collect(counts_ptr, tally_ptr, C, BINS)
