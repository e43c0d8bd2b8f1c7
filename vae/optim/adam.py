"""Adam, as torch computes it, without torch's optimiser class around it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

EPS = 1e-8
_KEPT = ("average", "square", "steps")


class Adam:
    """Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", by torch's functional form.

    `torch.optim.Optimizer` imports torch._dynamo when it is made: a second of CPU, a fifth of a whole check.

    Args:
        parameters: those to move; one without a gradient stays.
        betas: decay of the averages of the gradient and of its square.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], betas: tuple[float, float]) -> None:
        self._betas = betas
        self._state = {
            p: (torch.zeros_like(p), torch.zeros_like(p), torch.zeros((), dtype=torch.float32, device=p.device))
            for p in parameters
        }

    @torch.no_grad()
    def step(self, lr: float | Tensor) -> None:
        """Move every parameter that has a gradient, at rate `lr`; a rate on the device is read there."""
        moving = [p for p in self._state if p.grad is not None]
        if not moving:
            return
        if isinstance(lr, Tensor) and lr.device.type != "cpu":
            lr = lr.float()  # the only type that the fused kernel reads
        gradients: list[Tensor] = [p.grad for p in moving if p.grad is not None]
        averages, squares, steps = (list(part) for part in zip(*(self._state[p] for p in moving), strict=True))
        adam(
            list(moving),
            gradients,
            averages,
            squares,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=self._betas[0],
            beta2=self._betas[1],
            lr=lr,
            weight_decay=0.0,
            eps=EPS,
            maximize=False,
        )

    def state(self) -> list[Tensor]:
        """What is kept from step to step and changed in place."""
        return [kept for part in self._state.values() for kept in part]

    def kept(self) -> dict[nn.Parameter, dict[str, Tensor]]:
        """The same by parameter and by name, to be written to a file; as they are, not copied."""
        return {p: dict(zip(_KEPT, part, strict=True)) for p, part in self._state.items()}

    @torch.no_grad()
    def load(self, kept: Mapping[nn.Parameter, Mapping[str, Tensor]]) -> None:
        """Go on from what `kept` gave: for every parameter, tensors of its names and shapes."""
        for parameter, part in self._state.items():
            for name, tensor in zip(_KEPT, part, strict=True):
                tensor.copy_(kept[parameter][name])
