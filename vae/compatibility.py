"""Whether a model and a batch go together."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from vaefit.cache.errors import DataError
from vaefit.cache.histogram import outside_classes

from .adapter import outputs
from .batch import Batch
from .errors import RunError
from .model import BetaVAE
from .signals import Labels


def as_batch(batch: ArrayLike | Tensor) -> Batch:
    """The batch of labels (B, H, W); DataError where it is something else."""
    grids = np.asarray(batch.cpu() if isinstance(batch, Tensor) else batch)
    if grids.ndim != 3 or grids.size == 0 or grids.dtype.kind not in "iu":
        raise DataError(
            "a batch is (B, H, W) integer labels, at least one",
            "batch",
            got=f"shape {grids.shape}, dtype {grids.dtype}",
            do="Pass labels, not logits or one-hot vectors.",
        )
    return Batch(grids.astype(np.int64), ())


def device_of(model: nn.Module) -> torch.device:
    """The device of the parameters; RunError where none of them can learn."""
    parameter = next(model.parameters(), None)
    if parameter is None or not any(p.requires_grad for p in model.parameters()):
        do = "Pass a model with parameters that require a gradient."
        raise RunError("the model has no parameter that can learn", type(model).__name__, do=do)
    return parameter.device


def inputs_of(model: nn.Module, targets: Tensor) -> Tensor:
    """What the model is fed at every step: our own network's one-hot form is made once."""
    if not isinstance(model, BetaVAE):
        return targets
    return model.one_hot(targets).contiguous(memory_format=torch.channels_last)


def first_logits(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """The logits of the model as it is; RunError where they are not (B, C, H, W)."""
    with torch.no_grad():
        logits = outputs(model, inputs, None)[0]
    if logits.dim() != 4 or (logits.shape[0], *logits.shape[2:]) != tuple(targets.shape):
        b, h, w = targets.shape
        raise RunError(
            f"the model must return logits ({b}, C, {h}, {w}) for this batch",
            type(model).__name__,
            got=f"shape {tuple(logits.shape)}",
            do="Reshape or crop them in the model, or in a module around it.",
        )
    return logits


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
