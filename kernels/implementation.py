"""Interface of an implementation: its functions, their setting and their result."""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeAlias

from torch import Tensor

from .reduction import Reduction


class FocalSetting(NamedTuple):
    """Arguments of the loss beside its tensors, checked."""

    weight: Tensor | None  # (C,) in the dtype of the arithmetic
    gamma: float
    ignore_index: int
    reduction: Reduction
    want_gradient: bool
    want_counts: bool


FocalResult: TypeAlias = "tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]"
"""Loss, gradient, remainder and tally.

- loss: in the dtype of the arithmetic; (B, *) for the reduction `none`, else a scalar.
- gradient: shaped and typed as the logits; None unless wanted.
- remainder: a scalar that the gradient must still be multiplied by; None is 1. It is another number for float16 logits,
  whose small gradients survive only if the divisor of the mean is applied after the upstream gradient's scale, and on a
  GPU for a mean over cells of which some are ignored: their number is known only after the gradient is written.
- tally: int64 (C * C + 1,), the confusion counts by rows and then the number of labels outside 0..C-1 that are not
  ignored; None unless wanted.
"""


class Implementation(Protocol):
    """Module of a backend. Its functions take checked tensors and write to none of them."""

    def focal(self, logits: Tensor, targets: Tensor, setting: FocalSetting) -> FocalResult:
        """Return the loss of logits (B, C, *) and targets (B, *), and what the setting wants beside it."""

    def confusion(self, logits: Tensor, targets: Tensor, ignore_index: int) -> Tensor:
        """Return the tally of logits (B, C, *) against targets (B, *)."""

    def confusion_ready(self, predictions: Tensor, targets: Tensor, ignore_index: int, num_classes: int) -> Tensor:
        """Return the tally of predictions (B, *); a prediction outside 0..C-1 counts as a label outside does."""
