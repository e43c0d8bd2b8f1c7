"""Adam by torch's functional form: `torch.optim.Adam` imports torch._dynamo, which takes a second."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

EPS = 1e-8
_NAMES = ("average", "square", "steps")


class Adam:
    """Adam optimizer (Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization").

    Args:
        parameters: the parameters to update; one without a gradient does not change.
        betas: decay of the averages of the gradient and of its square.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], betas: tuple[float, float]) -> None:
        self._betas = betas
        self._state = {
            p: {
                "average": torch.zeros_like(p),
                "square": torch.zeros_like(p),
                "steps": torch.zeros((), dtype=torch.float32, device=p.device),
            }
            for p in parameters
        }

    @torch.no_grad()
    def step(self, lr: float | Tensor) -> None:
        """Update every parameter that has a gradient, at rate `lr`; a tensor `lr` is read on its device."""
        updated = [p for p in self._state if p.grad is not None]
        if not updated:
            return
        if isinstance(lr, Tensor) and lr.device.type != "cpu":
            lr = lr.float()  # the only type that the fused kernel reads
        gradients: list[Tensor] = [p.grad for p in updated if p.grad is not None]
        averages, squares, steps = ([self._state[p][name] for p in updated] for name in _NAMES)
        adam(
            list(updated),
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

    def optimizer_state(self) -> dict[nn.Parameter, dict[str, Tensor]]:
        """Return the tensors that a step changes in place, by parameter and name, not copied."""
        return self._state

    @torch.no_grad()
    def load_state(self, state: Mapping[nn.Parameter, Mapping[str, Tensor]]) -> None:
        """Restore what `optimizer_state` returned: for every parameter, tensors of its names and shapes."""
        for parameter, part in self._state.items():
            for name, tensor in part.items():
                tensor.copy_(state[parameter][name])
