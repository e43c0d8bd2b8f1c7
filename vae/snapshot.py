"""A model's parameters and buffers, put aside to come back to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Snapshot:
    """What `state_dict` gave at one moment, in memory of its own, and the mode of the model."""

    state: dict[str, Any]
    training: bool

    @classmethod
    def of(cls, model: nn.Module) -> Snapshot:
        """Copy the model's state; what is no tensor in it is kept as it is."""
        state = {
            name: value.detach().clone() if isinstance(value, Tensor) else value
            for name, value in model.state_dict().items()
        }
        return cls(state, model.training)

    def restore(self, model: nn.Module) -> None:
        """Give the model, in place, the state that it had, without gradients."""
        with torch.no_grad():
            model.load_state_dict(self.state)
        model.train(self.training)
        for parameter in model.parameters():
            parameter.grad = None
