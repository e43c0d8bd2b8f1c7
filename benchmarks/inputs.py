"""What a measured call is given: logits, targets and class weights of one shape and dtype."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BACKGROUND = 0.93
"""Share of class 0, as in ARC grids: predictions that gather in one class are the hard case for counting."""
MARGIN = 4.0
"""Added to the logit of the target, on noise of standard deviation 2: about 9 cells in 10 are right, some are not."""
HALF_SCALE = 32768.0
"""Upstream gradient of float16 losses, as a gradient scaler gives one; without it the gradient of a mean underflows."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Shape = tuple[int, int, int, int]  # B, C, H, W


def spelled(shape: Shape) -> str:
    """The shape as `--shape` takes it."""
    return ",".join(map(str, shape))


@dataclass(frozen=True)
class Inputs:
    """Arguments of one call."""

    logits: Tensor  # (B, C, H, W), requires a gradient
    targets: Tensor  # (B, H, W) int64
    weight: Tensor  # (C,) float32

    @property
    def upstream(self) -> float:
        """The gradient that reaches the loss."""
        return HALF_SCALE if self.logits.dtype == torch.float16 else 1.0

    @property
    def bytes(self) -> int:
        """Memory of logits and targets."""
        return self.logits.nbytes + self.targets.nbytes


def make_inputs(shape: Shape, dtype: torch.dtype, device: torch.device, seed: int = 0) -> Inputs:
    """Inputs drawn on the device; the same seed gives the same there."""
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
    """As many inputs as it takes to hold more than `beyond` bytes, and at least one."""
    first = make_inputs(shape, dtype, device)
    more = math.ceil(beyond / first.bytes) - 1
    return [first, *(make_inputs(shape, dtype, device, seed) for seed in range(1, 1 + more))]
