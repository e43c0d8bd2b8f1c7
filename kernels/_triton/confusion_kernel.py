"""Confusion counts: the kernel that counts alone, and the device functions that the loss kernel shares with it.

The tally is int64 (C * C + 1,): counts by rows, then the number of labels outside the classes.

With few classes a program keeps its counts in registers and adds them once, at its end, to a workspace that is all
zeros between launches; the last program to arrive moves them to the output and leaves zeros behind, so that no launch
needs a memset. With more classes, BINS is 0, and each block adds to an output that was set to zero, the likely pair of
the block in one addition: a batch of one colour would else queue all its cells at one address.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .indexing import block_of_cells, load_labels, offset_of


@triton.jit
def larger(top, predicted, z, c):
    """Return the largest logit so far and its class: the lowest class wins ties, and the first NaN wins over all."""
    wins = ~(z <= top) & (top == top)
    return tl.where(wins, z, top), tl.where(wins, c, predicted)


@triton.jit
def pair_of(label, predicted, kept, usable, C: tl.constexpr):
    """Return the index into the tally; C * C for a label outside the classes, C * C + 1 for an ignored cell."""
    return tl.where(usable, label * C + predicted, tl.where(kept, C * C, C * C + 1))


@triton.jit
def count(histogram, tally_ptr, pair, C: tl.constexpr, BINS: tl.constexpr):
    """Add a block's pairs to the histogram, and return it; where BINS is 0, add them to the zeroed tally."""
    if BINS > 0:
        histogram += tl.histogram(pair, BINS)
    else:
        lane = tl.arange(0, pair.shape[0])
        counted = pair <= C * C
        first = tl.min(tl.where(counted, lane, pair.shape[0]))
        likely = tl.sum(tl.where(lane == first, pair, 0))
        same = counted & (pair == likely)
        together = tl.sum(same.to(tl.int32))
        tl.atomic_add(tally_ptr + likely, together.to(tl.int64), mask=together > 0, sem="relaxed")
        one = tl.full(pair.shape, 1, tl.int64)
        tl.atomic_add(tally_ptr + pair, one, mask=counted & (pair != likely), sem="relaxed")
    return histogram


@triton.jit
def publish(histogram, tally_ptr, C: tl.constexpr, BINS: tl.constexpr):
    """Add a program's histogram to the workspace's tally and return 0 when the additions are done.

    The 0 is computed from the results of the additions, so that adding it to the ticket waits for all of them: no other
    ordering between the threads of a program has to be relied on.
    """
    bin = tl.arange(0, BINS)
    before = tl.atomic_add(
        tally_ptr + bin, histogram.to(tl.int64), mask=(bin <= C * C) & (histogram > 0), sem="relaxed"
    )
    # what a masked-off lane returns is undefined
    return tl.sum(((bin <= C * C) & (histogram > 0) & (before < 0)).to(tl.int32))


@triton.jit
def collect(workspace_ptr, tally_ptr, C: tl.constexpr, BINS: tl.constexpr):
    """Move the workspace's tally to the output, in the last program. An addition of 0 reads past every stale cache."""
    bin = tl.arange(0, BINS)
    there = bin <= C * C
    total = tl.atomic_add(workspace_ptr + bin, tl.zeros([BINS], tl.int64), mask=there, sem="relaxed")
    tl.store(tally_ptr + bin, total, mask=there)
    tl.store(workspace_ptr + bin, tl.zeros([BINS], tl.int64), mask=there)


@triton.jit
def is_last(ticket_ptr, pending):
    """Take a ticket: true in the program that is the last of the launch to do so, which puts the ticket back to 0."""
    ticket = tl.atomic_add(ticket_ptr, (1 + pending).to(tl.int64), sem="acq_rel")
    last = ticket == tl.num_programs(0) - 1
    if last:
        tl.store(ticket_ptr, tl.zeros([], tl.int64))
    return last


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
