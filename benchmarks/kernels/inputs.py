"""Inputs of a measured call (logits, targets, class weights), its operation, and its answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vaefit.kernels import Backend, confusion_counts, focal_loss, focal_loss_with_counts

BACKGROUND = 0.93
"""Share of class 0, as in ARC grids: predictions that gather in one class are the hard case for counting."""
MARGIN = 4.0
"""Added to the logit of the target, on noise of standard deviation 2: about 9 cells in 10 are right, some are not."""
HALF_SCALE = 32768.0
"""Upstream gradient of float16 losses, as a gradient scaler gives one; without it the gradient of a mean underflows."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Shape = tuple[int, int, int, int]  # B, C, H, W


def spelled(shape: Shape) -> str:
    """Return the shape in the form of `--shape`."""
    return ",".join(map(str, shape))


@dataclass(frozen=True)
class Inputs:
    """Arguments of one call."""

    logits: Tensor  # (B, C, H, W), requires a gradient
    targets: Tensor  # (B, H, W) int64
    weight: Tensor  # (C,) float32

    @property
    def upstream(self) -> float:
        """Return the upstream gradient of the loss."""
        return HALF_SCALE if self.logits.dtype == torch.float16 else 1.0

    @property
    def bytes(self) -> int:
        """Return the memory of logits and targets."""
        return self.logits.nbytes + self.targets.nbytes


def make_inputs(shape: Shape, dtype: torch.dtype, device: torch.device, seed: int = 0) -> Inputs:
    """Draw inputs on the device; the same seed gives the same inputs there."""
    batch, classes, height, width = shape
    generator = torch.Generator(device).manual_seed(seed)
    cells = (batch, height, width)
    targets = torch.randint(0, classes, cells, generator=generator, device=device)
    targets.masked_fill_(torch.rand(cells, generator=generator, device=device) < BACKGROUND, 0)
    logits = torch.randn(shape, generator=generator, device=device, dtype=torch.float32).mul_(2)
    logits.scatter_add_(1, targets.unsqueeze(1), torch.full_like(logits[:, :1], MARGIN))
    weight = 0.1 + torch.rand(classes, generator=generator, device=device)
    return Inputs(logits.to(dtype).requires_grad_(), targets, weight)


def make_sets(shape: Shape, dtype: torch.dtype, device: torch.device, beyond: int) -> list[Inputs]:
    """Make inputs until they hold more than `beyond` bytes, at least one."""
    first = make_inputs(shape, dtype, device)
    more = math.ceil(beyond / first.bytes) - 1
    return [first, *(make_inputs(shape, dtype, device, seed) for seed in range(1, 1 + more))]


Op = Literal["loss+gradient+counts", "loss+gradient", "loss+counts", "counts"]
"""A training step with metrics; one without; an evaluation; the counts alone. Counts are confusion counts."""
OPS: tuple[Op, ...] = ("loss+gradient+counts", "loss+gradient", "loss+counts", "counts")
LABEL_BYTES = 8


@dataclass(frozen=True)
class Answer:
    """Result of a call; None for the parts that the operation does not name."""

    loss: Tensor | None = None
    gradient: Tensor | None = None  # (B, C, H, W)
    counts: Tensor | None = None  # (C, C)


def bytes_moved(op: Op, inputs: Inputs) -> int:
    """Return the bytes of a pass that reads each input once and writes each output once.

    float32 logits with gradient: 8 + 8 / C a logit, and next to nothing for weights, counts and loss.
    """
    classes = inputs.logits.shape[1]
    moved = inputs.bytes
    if "gradient" in op:
        moved += inputs.logits.nbytes
    if "loss" in op:
        moved += inputs.weight.nbytes + 4
    if "counts" in op:
        moved += LABEL_BYTES * classes * classes
    return moved


GAMMA = 2.0


def as_they_are(inputs: Inputs) -> Inputs:
    """Return the inputs unchanged."""
    return inputs


@dataclass(frozen=True)
class Contestant:
    """Implementation that takes part in the benchmark.

    `call` computes what `op` names from inputs of any shape; `prepare` makes the inputs that it wants from ours,
    outside the timed region and anew for each call.
    """

    name: str
    call: Callable[[Inputs, Op], Answer]
    ops: tuple[Op, ...] = OPS
    gamma: float = GAMMA
    """Gamma of its loss; the reference takes the same."""
    weighted: bool = True
    """True where its loss takes the class weights."""
    prepare: Callable[[Inputs], Inputs] = as_they_are


def gradient_of(loss: Tensor, inputs: Inputs) -> Tensor:
    """Return the gradient of a scalar loss in the logits, for the upstream gradient of the inputs."""
    scale = None if inputs.upstream == 1 else torch.full_like(loss, inputs.upstream)
    return torch.autograd.grad(loss, inputs.logits, scale)[0]


def ours(backend: Backend, name: str = "vaefit") -> Contestant:
    """Return the public functions of `vaefit.kernels` as a contestant; one call an operation, reduction `mean`."""

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
