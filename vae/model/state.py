"""A model's parameters and buffers, put aside to come back to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Snapshot:
    """Every parameter and buffer at one moment, those that `state_dict` leaves out too, and the modes of the parts."""

    tensors: dict[str, Tensor]
    modes: dict[str, bool]

    @classmethod
    def from_model(cls, model: nn.Module) -> Snapshot:
        """Copy the model's tensors. What a model keeps elsewhere is not seen."""
        return cls({name: tensor.detach().clone() for name, tensor in all_tensors(model).items()}, modes(model))

    def restore(self, model: nn.Module) -> None:
        """Give the model, in place, the tensors that it had, without gradients."""
        with torch.no_grad():
            for name, tensor in all_tensors(model).items():
                if name in self.tensors:
                    tensor.copy_(self.tensors[name])
        set_modes(model, self.modes)
        for parameter in model.parameters():
            parameter.grad = None


def all_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by its name, those that `state_dict` leaves out too; the tensors themselves."""
    return dict(chain(model.named_parameters(), model.named_buffers()))


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
