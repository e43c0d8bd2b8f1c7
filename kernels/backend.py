"""The one place that chooses which implementation of the loss runs, and says why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch

Backend = Literal["auto", "triton", "compiled", "eager", "reference"]


@dataclass(frozen=True)
class BackendChoice:
    """An implementation and the reason for it; `str()` gives the line that a run header prints."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


def choose_backend(requested: Backend, device: torch.device) -> BackendChoice:
    """Choose the implementation for tensors on `device`.

    Raises ValueError where `requested` is unknown or cannot run; nothing falls back in silence.
    """
    if requested == "auto":
        return BackendChoice("eager", f"tensors are on {device.type}")
    if requested in ("eager", "reference"):
        return BackendChoice(requested, "asked for")
    if requested in get_args(Backend):
        raise ValueError(
            f"backend {requested!r} is not part of this version of vaefit; tensors are on {device.type}. "
            "Use 'auto', 'eager' or 'reference'."
        )
    raise ValueError(f"backend is {requested!r}. Use one of {', '.join(get_args(Backend))}.")
