"""Kernels of the loss: loss, gradient and confusion counts from one read of the logits; the scaling of the gradient.

A program takes every n-th block of cells. With few classes a cell's logits stay in registers; with more they are read
again, from the cache, once for the sum of exponentials and once for the gradient.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .confusion_kernel import collect, count, is_last, larger, pair_of, publish
from .focal_math import loss_and_slope
from .indexing import block_of_cells, load_labels, offset_of


@triton.jit
def _focal_kernel(
    logits_ptr,  # (B, C, *) by stride
    targets_ptr,  # (B, *) by stride, any integer
    weight_ptr,  # (C,) fp32
    loss_ptr,  # fp32: a scalar, or (cells,) with PER_CELL
    gradient_ptr,  # as the logits, by stride
    remainder_ptr,  # fp32 scalar
    tally_ptr,  # (C * C + 1,) int64
    ticket_ptr,  # int64 scalar, 0 between launches
    counts_ptr,  # (BINS,) int64, 0 between launches
    losses_ptr,  # (PROGRAMS,) fp32, one sum a program
    kepts_ptr,  # (PROGRAMS,) int32, usable cells a program
    cells,
    sizes,  # of the cells' dimensions, outermost first, and the strides along them
    logits_strides,
    targets_strides,
    gradient_strides,
    logits_class_stride,
    gradient_class_stride,
    ignore_index,
    gamma,
    divided_by,  # what the gradient is divided by here
    divisor,  # of the loss; unless BY_KEPT, where it is the number of usable cells
    C: tl.constexpr,
    GAMMA: tl.constexpr,
    WEIGHTED: tl.constexpr,
    GRADIENT: tl.constexpr,
    COUNTS: tl.constexpr,
    PER_CELL: tl.constexpr,
    BY_KEPT: tl.constexpr,
    IN_REGISTERS: tl.constexpr,
    BINS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
    PROGRAMS: tl.constexpr,
):
    program = tl.program_id(0)
    if WIDE:
        cells = tl.cast(cells, tl.int64)  # 32 bits may not hold the end of the last block
    losses = tl.zeros([BLOCK], tl.float32)
    kepts = tl.zeros([BLOCK], tl.int32)
    histogram = tl.zeros([BINS if BINS > 0 else 1], tl.int32)
    class_stride = tl.cast(logits_class_stride, tl.int64)  # which may be a constant, 1
    gradient_class_stride = tl.cast(gradient_class_stride, tl.int64)

    for block in range(program, tl.cdiv(cells, BLOCK), tl.num_programs(0)):
        cell, there = block_of_cells(block, cells, BLOCK, WIDE)
        z_ptr = logits_ptr + offset_of(cell, sizes, logits_strides)
        g_ptr = gradient_ptr + offset_of(cell, sizes, gradient_strides)
        label, kept, usable = load_labels(targets_ptr, offset_of(cell, sizes, targets_strides), there, ignore_index, C)

        if IN_REGISTERS:
            values = ()
            for c in tl.static_range(C):
                values = values + (tl.load(z_ptr + c * class_stride, mask=there, other=0.0).to(tl.float32),)
            top, predicted = values[0], tl.zeros([BLOCK], tl.int32)
            for c in tl.static_range(1, C):
                top, predicted = larger(top, predicted, values[c], c)
            others, e_t, z_t = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32), top
            powers = ()
            for c in tl.static_range(C):
                others, e_t, z_t, e = add_class(others, e_t, z_t, values[c], top, label == c)
                powers = powers + (e,)
        else:
            top, predicted = tl.load(z_ptr, mask=there, other=0.0).to(tl.float32), tl.zeros([BLOCK], tl.int32)
            for c in tl.range(1, C, loop_unroll_factor=8):
                z = tl.load(z_ptr + c * class_stride, mask=there, other=0.0).to(tl.float32)
                top, predicted = larger(top, predicted, z, c)
            others, e_t, z_t = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32), top
            for c in tl.range(0, C, loop_unroll_factor=8):
                z = tl.load(z_ptr + c * class_stride, mask=there, other=0.0).to(tl.float32)
                others, e_t, z_t, _ = add_class(others, e_t, z_t, z, top, label == c)

        # here, where the logits are done with: at the end, the compiler takes half as many registers again
        if COUNTS:
            histogram = count(histogram, tally_ptr, pair_of(label, predicted, kept, usable, C), C, BINS)

        if WEIGHTED:
            weight = tl.load(weight_ptr + label, mask=usable, other=0.0)
        else:
            weight = tl.full([BLOCK], 1.0, tl.float32)
        loss, slope, miss, inverse = loss_and_slope(top, z_t, e_t, others, weight, gamma, GAMMA)
        # masked at the end: 0 * NaN would leak out of an ignored cell
        loss = tl.where(usable, loss, 0.0)
        if PER_CELL:
            tl.store(loss_ptr + cell, loss, mask=there)
        else:
            losses += loss
            kepts += usable.to(tl.int32)

        if GRADIENT:
            slope = slope / divided_by
            at_target, at_others = -slope * miss, slope * inverse
            if IN_REGISTERS:
                for c in tl.static_range(C):
                    g = tl.where(label == c, at_target, at_others * powers[c])
                    g = tl.where(usable, g, 0.0).to(gradient_ptr.dtype.element_ty)
                    tl.store(g_ptr + c * gradient_class_stride, g, mask=there)
            else:
                # eight loads before the first store, past which the compiler may move none
                for first in range(0, C, 8):
                    values = ()
                    for i in tl.static_range(8):
                        inside = there & (first + i < C)
                        z = tl.load(z_ptr + (first + i) * class_stride, mask=inside, other=0.0)
                        values = values + (z.to(tl.float32),)
                    for i in tl.static_range(8):
                        inside = there & (first + i < C)
                        g = tl.where(label == first + i, at_target, at_others * tl.exp(values[i] - top))
                        g = tl.where(usable, g, 0.0).to(gradient_ptr.dtype.element_ty)
                        tl.store(g_ptr + (first + i) * gradient_class_stride, g, mask=inside)

    pending = program * 0
    if COUNTS and BINS > 0:
        pending = publish(histogram, counts_ptr, C, BINS)
    if not PER_CELL:
        tl.store(losses_ptr + program, tl.sum(losses))
        tl.store(kepts_ptr + program, tl.sum(kepts))
    if not PER_CELL or (COUNTS and BINS > 0):
        if is_last(ticket_ptr, pending):
            if COUNTS and BINS > 0:
                collect(counts_ptr, tally_ptr, C, BINS)
            if not PER_CELL:
                finish_loss(losses_ptr, kepts_ptr, loss_ptr, remainder_ptr, divided_by, divisor, BY_KEPT, PROGRAMS)


@triton.jit
def add_class(others, e_t, z_t, z, top, is_target):
    """Add one class to the arguments of `loss_and_slope`; return them and its exponential."""
    e = tl.exp(z - top)
    return others + tl.where(is_target, 0.0, e), tl.where(is_target, e, e_t), tl.where(is_target, z, z_t), e


@triton.jit
def finish_loss(
    losses_ptr,
    kepts_ptr,
    loss_ptr,
    remainder_ptr,
    divided_by,
    divisor,
    BY_KEPT: tl.constexpr,
    PROGRAMS: tl.constexpr,
):
    """Add the programs' sums, always in the same order; read past the first-level cache."""
    lane = tl.arange(0, PROGRAMS)
    there = lane < tl.num_programs(0)
    total = tl.sum(tl.load(losses_ptr + lane, mask=there, other=0.0, cache_modifier=".cg").to(tl.float64))
    if BY_KEPT:
        kept = tl.sum(tl.load(kepts_ptr + lane, mask=there, other=0, cache_modifier=".cg").to(tl.int64))
        by = tl.maximum(kept, 1).to(tl.float64)
    else:
        by = tl.cast(divisor, tl.float64)
    tl.store(loss_ptr, (total / by).to(tl.float32))
    # exactly 1 where they are equal, both rounded, which spares the backward pass its multiplication
    rounded = by.to(tl.float32).to(tl.float64)
    tl.store(remainder_ptr, (tl.cast(divided_by, tl.float64) / rounded).to(tl.float32))


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
