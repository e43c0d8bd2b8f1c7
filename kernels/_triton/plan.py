"""Launch of each kernel for given tensors: its shapes, constants and block sizes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import FocalSetting
from .confusion_kernel import _confusion_kernel
from .focal_kernel import _focal_kernel, _scale_kernel
from .launch import MOST_BINS, MOST_PROGRAMS, Cells, Launch, Workspace, power_of_two, programs_for

REGISTER_CLASSES = 32
"""Most classes for which a cell's logits stay in registers; unrolled further, kernels take long to compile."""
FEWEST_BINS = 128
"""Least bins of a histogram; with fewer bins than threads, its code takes more registers."""
WARPS = 4
MOST_REGISTERS = 168
"""Limit of a thread: three blocks of 128 threads still share a multiprocessor's 65,536."""
BY_KEPT = -1.0
"""Divisor that means the number of usable cells, which only the device knows."""


class FocalOutputs(NamedTuple):
    """Memory for the outputs of the loss kernel; for an unwanted one, any tensor."""

    loss: Tensor
    gradient: Tensor
    remainder: Tensor
    tally: Tensor


def bins_for(classes: int) -> int:
    """Return the bins of a program's histogram: pairs, bad labels, ignored cells; 0 if registers cannot hold them."""
    bins = max(FEWEST_BINS, power_of_two(classes * classes + 2))
    return bins if bins <= MOST_BINS else 0


def plan_focal(
    logits: Tensor, targets: Tensor, setting: FocalSetting, outputs: FocalOutputs, workspace: Workspace
) -> Launch:
    """Return the launch that writes the outputs; see `FocalResult`."""
    classes, gamma, reduction = logits.shape[1], float(setting.gamma), setting.reduction
    gradient = outputs.gradient if setting.want_gradient else logits
    divisor = {"none": 1.0, "sum": 1.0, "batch": float(logits.shape[0]), "mean": BY_KEPT}[reduction]
    divided_by = float(targets.numel()) if reduction == "mean" else divisor
    if logits.dtype == torch.float16:
        divided_by = 1.0  # float16 loses small numbers; the backward pass divides, after a loss scale is applied
    cells = Cells.from_tensors(logits, targets, gradient, by_class=(True, False, True))
    block, warps, registers = _focal_shape(classes)
    programs = programs_for(-(-cells.count // block), warps, logits.device)
    return Launch(
        _focal_kernel,
        programs,
        {
            "logits_ptr": logits,
            "targets_ptr": targets,
            "weight_ptr": logits if setting.weight is None else setting.weight,
            "loss_ptr": outputs.loss,
            "gradient_ptr": gradient,
            "remainder_ptr": outputs.remainder,
            "tally_ptr": outputs.tally,
            "ticket_ptr": workspace.ticket,
            "counts_ptr": workspace.counts,
            "losses_ptr": workspace.losses,
            "kepts_ptr": workspace.kepts,
            "cells": cells.count,
            "sizes": cells.sizes,
            "logits_strides": cells.strides[0],
            "targets_strides": cells.strides[1],
            "gradient_strides": cells.strides[2],
            "logits_class_stride": logits.stride(1),
            "gradient_class_stride": gradient.stride(1),
            "ignore_index": setting.ignore_index,
            "gamma": gamma,
            "divided_by": divided_by,
            "divisor": divisor,
        },
        {
            "C": classes,
            "GAMMA": int(gamma) if gamma in (0, 1, 2) else -1,
            "WEIGHTED": setting.weight is not None,
            "GRADIENT": setting.want_gradient,
            "COUNTS": setting.want_counts,
            "PER_CELL": reduction == "none",
            "BY_KEPT": divisor == BY_KEPT,
            "IN_REGISTERS": classes <= REGISTER_CLASSES,
            "BINS": bins_for(classes) if setting.want_counts else 0,
            "BLOCK": block,
            "WIDE": cells.wide,
            "PROGRAMS": MOST_PROGRAMS,
        },
        warps,
        registers,
    )


def plan_confusion(
    values: Tensor, targets: Tensor, ignore_index: int, classes: int, ready: bool, tally: Tensor, workspace: Workspace
) -> Launch:
    """Return the launch that counts logits, or with `ready` predictions, against the targets."""
    cells = Cells.from_tensors(values, targets, by_class=(not ready, False))
    block = 1024 if ready else 512
    return Launch(
        _confusion_kernel,
        programs_for(-(-cells.count // block), WARPS, values.device),
        {
            "values_ptr": values,
            "targets_ptr": targets,
            "tally_ptr": tally,
            "ticket_ptr": workspace.ticket,
            "counts_ptr": workspace.counts,
            "cells": cells.count,
            "sizes": cells.sizes,
            "values_strides": cells.strides[0],
            "targets_strides": cells.strides[1],
            "class_stride": 0 if ready else values.stride(1),
            "ignore_index": ignore_index,
        },
        {
            "C": classes,
            "READY": ready,
            "UNROLLED": classes <= REGISTER_CLASSES,
            "BINS": bins_for(classes),
            "BLOCK": block,
            "WIDE": cells.wide,
        },
        WARPS,
    )


def plan_scale(gradient: Tensor, upstream: Tensor, remainder: Tensor, scaled: Tensor) -> Launch:
    """Return the launch that writes gradient * upstream * remainder; a dense gradient, its cells in any order."""
    block = 2048
    cells = Cells(gradient.numel(), (gradient.numel(),), ((1,),))
    return Launch(
        _scale_kernel,
        programs_for(-(-cells.count // block), WARPS, gradient.device),
        {
            "gradient_ptr": gradient,
            "scaled_ptr": scaled,
            "upstream_ptr": upstream,
            "remainder_ptr": remainder,
            "numel": cells.count,
        },
        {"IN_PLACE": scaled is gradient, "BLOCK": block, "WIDE": cells.wide},
        WARPS,
    )


def _focal_shape(classes: int) -> tuple[int, int, int | None]:
    """Return cells and warps of a block, and a bound of a thread's registers.

    Found by compiling for every target, so that no thread spills or needs more than `MOST_REGISTERS`: four cells a
    thread where their logits fit beside one another, two beside a longer histogram, else one. Where no logits are held,
    blocks are so small that the cache holds theirs. Given a bound, the assembler does not spill a few words to make
    room for threads that are never started.
    """
    if classes <= 12:
        return 512, 4, None
    if classes <= 16:
        return 512, 8, None
    if classes <= REGISTER_CLASSES:
        return (256, 8, 128) if bins_for(classes) else (128, 4, MOST_REGISTERS)
    return 64, 2, 128
