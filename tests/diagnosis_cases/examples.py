"""Foreign networks of the checkout's `examples/`, loaded by path like a user's model."""

from __future__ import annotations

from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from vaefit.vae.errors import RunError

FOLDER = Path(__file__).resolve().parents[2] / "examples"


@cache
def _module(name: str) -> ModuleType:
    file = FOLDER / f"{name}.py"
    if not file.exists():
        raise RunError(
            "an example network is missing", str(file), do="Run this from a checkout, which holds examples/."
        )
    spec = spec_from_file_location(f"vaefit_example_{name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def transformer(num_classes: int, height: int, width: int) -> nn.Module:
    """Return a `GridTransformer`."""
    model: nn.Module = _module("transformer").GridTransformer(num_classes, height, width)
    return model


def unet(num_classes: int) -> nn.Module:
    """Return a `UNet` that takes labels."""
    return FromLabels(_module("unet").UNet(num_classes), num_classes)


class FromLabels(nn.Module):
    """Wrapper that gives labels (B, H, W) to a model of one-hot floats (B, C, H, W)."""

    def __init__(self, model: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.model, self.num_classes = model, num_classes

    def forward(self, grids: Tensor) -> Tensor:
        """Return the model's output for the labels' one-hot form."""
        one_hot = nn.functional.one_hot(grids, self.num_classes).permute(0, 3, 1, 2)
        found: Tensor = self.model(one_hot.to(torch.float32))
        return found
