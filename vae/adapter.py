"""What a model gives back, whatever its form."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .errors import RunError


def outputs(model: nn.Module, inputs: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(logits, mu, logvar) of a model that returns logits, or the three of them.

    `noise` is passed on only where z is sampled, so that a model without a latent takes one argument. Raises RunError
    where something else comes back.
    """
    found: Any = model(inputs) if noise is None else model(inputs, noise)
    if isinstance(found, Tensor):
        return found, None, None
    if isinstance(found, tuple) and len(found) == 3 and all(isinstance(part, Tensor) for part in found):
        return found
    raise RunError(
        "the model must return logits (B, C, H, W), or (logits, mu, logvar)",
        type(model).__name__,
        got=type(found).__name__,
        do="Wrap it in a module that does.",
    )
