"""Initialisations of a network before its first step."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ..environment.determinism import seeded
from ..recipe import Init

_Layer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
ROUNDING = 1e-5
"""A standard deviation below this share of the outputs is rounding."""
_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def initialise(model: nn.Module, init: Init, run: Callable[[], object], seed: int) -> None:
    """Initialise every convolution and dense layer of `model` in place, from a seed.

    - `default`: torch's own, redrawn.
    - `kaiming`: Kaiming-normal weights for ReLU (He et al. 2015, equation 10), zero biases.
    - `rescaled`: `kaiming`, then each layer is scaled once so that its pre-activations on the batch have standard
      deviation 1 (after Mishkin and Matas 2016, "All you need is a good init"). For dense layers the deviation is
      across the batch, and the bias makes the batch mean of each unit 0.

    Args:
        run: runs the model on the batch once; called for `rescaled` only.
    """
    # generators of our own draw the numbers of torch's global ones, from which other threads may draw too
    own = {p.device: torch.Generator(p.device).manual_seed(seed) for p in model.parameters()}
    with seeded(seed, next(iter(own))):
        for layer in model.modules():
            if isinstance(layer, _LAYERS):
                if init == "default":
                    layer.reset_parameters()
                else:
                    _kaiming(layer, own[layer.weight.device])
    if init == "rescaled":
        _rescale(model, run)


def _kaiming(layer: _Layer, generator: torch.Generator) -> None:
    weight = layer.weight
    if isinstance(layer, nn.Linear):
        fan_in = float(weight.shape[1])
    elif isinstance(layer, nn.ConvTranspose2d):
        # each cell reads kernel / stride inputs a side
        fan_in = weight.shape[0] * math.prod(layer.kernel_size) / math.prod(layer.stride)
    else:
        fan_in = float(weight[0].numel())
    nn.init.normal_(weight, std=math.sqrt(2.0 / fan_in), generator=generator)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _rescale(model: nn.Module, run: Callable[[], object]) -> None:
    """Rescale each layer in one forward pass, before its output reaches the next layer."""
    seen: set[nn.Module] = set()

    def correct(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> Tensor:
        assert isinstance(layer, _LAYERS)
        if layer in seen or is_parametrized(layer):
            return output  # a shared layer is scaled at its first use; a parametrized weight is not scaled
        seen.add(layer)
        rows = output.flatten(0, -2) if output.dim() > 1 else output
        # a layer may serve many positions of a grid, as a transformer's tokens: they count like the batch
        across_batch = isinstance(layer, nn.Linear) and layer.bias is not None and rows.shape[0] > 1
        mean = rows.mean(dim=0) if across_batch else torch.zeros((), device=output.device, dtype=output.dtype)
        std = (output - mean).square().mean().sqrt() if across_batch else output.std()
        noise = max(ROUNDING, torch.finfo(output.dtype).eps) * output.square().mean().sqrt()
        if not (torch.isfinite(std) and std > noise):
            return output  # a constant layer has no scale, as a dense layer for equal grids
        layer.weight.div_(std)
        if layer.bias is not None:
            layer.bias.sub_(mean).div_(std)
        return (output - mean) / std

    hooks = [m.register_forward_hook(correct) for m in model.modules() if isinstance(m, _LAYERS)]
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
