"""Whether a model and a batch go together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from vaefit.cache.errors import DataError
from vaefit.cache.histogram import outside_classes

from .adapter import Adapter
from .batch import Batch
from .errors import RunError
from .signals import Labels


def as_batch(batch: Batch | ArrayLike | Tensor, targets: ArrayLike | Tensor | None) -> Batch:
    """The batch of labels (B, H, W), and what is wanted from them; DataError where either is something else."""
    fixed = batch if isinstance(batch, Batch) else Batch(_labels(batch, "batch"), ())
    if targets is None:
        return fixed
    wanted = _labels(targets, "targets")
    if wanted.shape != fixed.grids.shape:
        raise DataError(
            "targets have the shape of the batch",
            "targets",
            got=f"{wanted.shape} for a batch {fixed.grids.shape}",
            do="Pass one grid of labels for each grid of the batch, of its height and width.",
        )
    return replace(fixed, other_targets=wanted)


def _labels(labels: ArrayLike | Tensor, where: str) -> Labels:
    grids = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if grids.ndim != 3 or grids.size == 0 or grids.dtype.kind not in "iu":
        raise DataError(
            "a batch is (B, H, W) integer labels, at least one",
            where,
            got=f"shape {grids.shape}, dtype {grids.dtype}",
            do="Pass labels, not logits or one-hot vectors.",
        )
    return grids.astype(np.int64)


def device_of(model: nn.Module) -> torch.device:
    """The device of the parameters; RunError where none of them can learn."""
    parameter = next(model.parameters(), None)
    if parameter is None or not any(p.requires_grad for p in model.parameters()):
        do = "Pass a model with parameters that require a gradient."
        raise RunError("the model has no parameter that can learn", type(model).__name__, do=do)
    return parameter.device


def first_logits(model: nn.Module, adapter: Adapter, inputs: Tensor) -> Tensor:
    """The logits of the model as it is, without their graph; RunError where they have no gradient at all."""
    with torch.set_grad_enabled(not adapter.ours):
        logits, _, _ = adapter.outputs(model, inputs)
    if not (adapter.ours or logits.requires_grad):
        do = "Look for an argmax, a detach or torch.no_grad in its forward."
        raise RunError("no gradient leads from the logits to any parameter", type(model).__name__, do=do)
    return logits.detach()


def described_model(model: nn.Module) -> str:
    """Class and size of a model, in words; parameters that do not learn are told apart."""
    total = sum(p.numel() for p in model.parameters())
    frozen = total - sum(p.numel() for p in model.parameters() if p.requires_grad)
    apart = f", {frozen:,} of them frozen" if frozen else ""
    return f"{type(model).__name__}, {total:,} parameters{apart}"


def check_labels(grids: Labels, classes: int, ignore_index: int | None) -> None:
    """Raise DataError for a label of the batch (B, H, W) outside the classes, and where every cell is ignored."""
    outside = outside_classes(grids, classes, ignore_index)
    if outside.any():
        where = tuple(map(int, np.argwhere(outside)[0]))
        raise DataError(
            f"a label is outside the model's {classes} classes at (grid, row, column) {where}",
            "batch",
            got=str(grids[where]),
            do="Mend the label, name it as ignore_index, or build the model with more classes.",
        )
    if ignore_index is not None and (grids == ignore_index).all():
        raise DataError(
            "every cell of the batch is ignored",
            "batch",
            got=f"--ignore-index {ignore_index}",
            do="Choose other grids with --batch-seed or --indices.",
        )
