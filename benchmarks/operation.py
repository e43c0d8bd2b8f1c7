"""What is asked of the kernels and of their peers, and the bytes that it cannot do without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from .inputs import Inputs

Op = Literal["loss+gradient+counts", "loss+gradient", "loss+counts", "counts"]
"""A training step with metrics; one without; an evaluation; the counts alone. Counts are confusion counts."""
OPS: tuple[Op, ...] = ("loss+gradient+counts", "loss+gradient", "loss+counts", "counts")
LABEL_BYTES = 8


@dataclass(frozen=True)
class Answer:
    """What a call gives; None for what was not asked of it."""

    loss: Tensor | None = None
    gradient: Tensor | None = None  # (B, C, H, W)
    counts: Tensor | None = None  # (C, C)


def bytes_moved(op: Op, inputs: Inputs) -> int:
    """Bytes where each input is read once and each output written once.

    float32 logits with gradient: 8 + 8 / C a logit, and next to nothing for weights, counts and loss.
    """
    classes = inputs.logits.shape[1]
    moved = inputs.bytes
    if "gradient" in op:
        moved += inputs.logits.nbytes
    if "loss" in op:
        moved += inputs.weight.nbytes + 4
    if "counts" in op:
        moved += LABEL_BYTES * classes * classes
    return moved
