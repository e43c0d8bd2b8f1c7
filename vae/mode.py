"""A model in the mode of evaluation for a while, and each of its parts back in its own afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def modes(model: nn.Module) -> dict[str, bool]:
    """Whether each part of the model is in training, by its name."""
    return {name: module.training for name, module in model.named_modules()}


def set_modes(model: nn.Module, wanted: dict[str, bool]) -> None:
    """Put each part into its mode; `train` would put all of them into one."""
    for name, module in model.named_modules():
        module.training = wanted.get(name, module.training)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluate within; the parts may have been in different modes before."""
    before = modes(model)
    model.eval()
    try:
        yield
    finally:
        set_modes(model, before)
