"""State of a model: a copy of its parameters and buffers, and its training and evaluation modes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Snapshot:
    """Copy of every parameter and buffer, those that `state_dict` leaves out included, and of each submodule's mode."""

    tensors: dict[str, Tensor]
    modes: dict[str, bool]

    @classmethod
    def from_model(cls, model: nn.Module) -> Snapshot:
        """Copy the model's tensors and modes; state outside parameters and buffers is not copied."""
        return cls({name: tensor.detach().clone() for name, tensor in all_tensors(model).items()}, modes(model))

    def restore(self, model: nn.Module) -> None:
        """Restore tensors and modes in place, and remove the gradients."""
        with torch.no_grad():
            for name, tensor in all_tensors(model).items():
                if name in self.tensors:
                    tensor.copy_(self.tensors[name])
        set_modes(model, self.modes)
        model.zero_grad()


def all_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and buffer by name, not copied, those that `state_dict` leaves out included."""
    return dict(chain(model.named_parameters(), model.named_buffers()))


def modes(model: nn.Module) -> dict[str, bool]:
    """Return the training flag of each submodule by name."""
    return {name: module.training for name, module in model.named_modules()}


def set_modes(model: nn.Module, wanted: dict[str, bool]) -> None:
    """Set the training flag of each submodule; `train` would set one flag for all."""
    for name, module in model.named_modules():
        module.training = wanted.get(name, module.training)


@contextmanager
def training(model: nn.Module, chosen: Callable[[nn.Module], bool]) -> Iterator[None]:
    """Context manager: training mode in the chosen modules alone, then restore every buffer and training flag."""
    before, buffers = modes(model), {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()
    for module in model.modules():
        module.training = module.training and chosen(module)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
        set_modes(model, before)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Context manager: evaluation mode, then restore the training flag of each submodule."""
    before = modes(model)
    model.eval()
    try:
        yield
    finally:
        set_modes(model, before)
