"""Kernel of the gradient times the upstream gradient; in place, a product of 1 reads and writes nothing."""

from __future__ import annotations

import triton
import triton.language as tl

from .indexing import block_of_cells


@triton.jit
def _scale_kernel(
    gradient_ptr,  # (numel,)
    scaled_ptr,  # (numel,): the gradient itself, with IN_PLACE
    upstream_ptr,  # fp32 scalar
    remainder_ptr,  # fp32 scalar
    numel,
    IN_PLACE: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    if WIDE:
        numel = tl.cast(numel, tl.int64)  # 32 bits may not hold the end of the last block
    scale = tl.load(upstream_ptr) * tl.load(remainder_ptr)
    if not IN_PLACE or scale != 1.0:
        for block in range(tl.program_id(0), tl.cdiv(numel, BLOCK), tl.num_programs(0)):
            i, there = block_of_cells(block, numel, BLOCK, WIDE)
            g = tl.load(gradient_ptr + i, mask=there, other=0.0).to(tl.float32)
            tl.store(scaled_ptr + i, (g * scale).to(scaled_ptr.dtype.element_ty), mask=there)
