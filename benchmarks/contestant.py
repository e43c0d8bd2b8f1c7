"""Whatever is measured: ours or a peer, behind one signature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vaefit.kernels import Backend, confusion_counts, focal_loss, focal_loss_with_counts

from .inputs import Inputs
from .operation import OPS, Answer, Op

GAMMA = 2.0


def as_they_are(inputs: Inputs) -> Inputs:
    """The inputs, of which nothing has to be made."""
    return inputs


@dataclass(frozen=True)
class Contestant:
    """One implementation.

    `call` computes what `op` names from inputs of any shape; `prepare` makes the inputs that it wants from ours,
    outside the timed region and anew for each call.
    """

    name: str
    call: Callable[[Inputs, Op], Answer]
    ops: tuple[Op, ...] = OPS
    gamma: float = GAMMA
    """Of its loss, which parity holds against the reference's."""
    weighted: bool = True
    """Its loss takes the class weights."""
    prepare: Callable[[Inputs], Inputs] = as_they_are


def gradient_of(loss: Tensor, inputs: Inputs) -> Tensor:
    """The gradient of a scalar loss in the logits, for the upstream gradient of the inputs."""
    scale = None if inputs.upstream == 1 else torch.full_like(loss, inputs.upstream)
    return torch.autograd.grad(loss, inputs.logits, scale)[0]


def ours(backend: Backend, name: str = "vaefit") -> Contestant:
    """The public functions of `vaefit.kernels`, with the mean as reduction: one call whatever is asked."""

    def call(inputs: Inputs, op: Op) -> Answer:
        logits, targets, weight = inputs.logits, inputs.targets, inputs.weight
        if op == "counts":
            return Answer(counts=confusion_counts(logits, targets, backend=backend))
        if op == "loss+gradient":
            loss = focal_loss(logits, targets, weight, GAMMA, backend=backend)
            return Answer(loss, gradient_of(loss, inputs))
        with torch.set_grad_enabled("gradient" in op):
            loss, counts = focal_loss_with_counts(logits, targets, weight, GAMMA, backend=backend)
        return Answer(loss, gradient_of(loss, inputs) if "gradient" in op else None, counts)

    return Contestant(name, call)
