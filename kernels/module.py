"""Module of the focal loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .backend import Backend
from .checks import ClassWeights
from .functional import Reduction, focal_loss


class FocalLoss(nn.Module):
    """`focal_loss` with its settings; the class weights (C,) are a buffer, so they move with the module.

    Shapes, dtypes and errors are those of `focal_loss`.
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: ClassWeights | None = None,
        gamma: float = 2.0,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        if weight is not None and not isinstance(weight, Tensor):
            weight = torch.tensor(weight, dtype=torch.float64)
        self.register_buffer("weight", weight)
        self.gamma = gamma
        self.ignore_index = ignore_index
        self.reduction: Reduction = reduction
        self.backend: Backend = backend

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return focal_loss(logits, targets, self.weight, self.gamma, self.ignore_index, self.reduction, self.backend)

    def extra_repr(self) -> str:
        return f"gamma={self.gamma}, ignore_index={self.ignore_index}, reduction={self.reduction!r}"
