"""Weighted focal loss and confusion counts over logits: public functions, their references, the backend choice."""

from .backend import Backend, BackendChoice, choose_backend
from .functional import Reduction, confusion_counts, focal_loss, focal_loss_with_counts
from .module import FocalLoss
from .reference import confusion_counts_reference, focal_loss_reference

__all__ = [
    "Backend",
    "BackendChoice",
    "FocalLoss",
    "Reduction",
    "choose_backend",
    "confusion_counts",
    "confusion_counts_reference",
    "focal_loss",
    "focal_loss_reference",
    "focal_loss_with_counts",
]
