"""The overfit check: the network, the recipes, the loop, the signals and the verdict; and a watch over training."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .assertion import assert_memorises
    from .lightning_callback import CollapseCallback as CollapseCallback
    from .model import BetaVAE
    from .monitor import CollapseMonitor
    from .overfitting import overfit
    from .recipe import RECIPES, Recipe
    from .result import OverfitResult
    from .training_warning import TrainingWarning

# without CollapseCallback: `from vaefit.vae import *` must not need lightning
__all__ = [
    "RECIPES",
    "BetaVAE",
    "CollapseMonitor",
    "OverfitResult",
    "Recipe",
    "TrainingWarning",
    "assert_memorises",
    "overfit",
]

# imported when first asked for: counting classes needs a corner of this package, and must not wait for torch
_HOMES = {
    "RECIPES": "recipe",
    "BetaVAE": "model",
    "CollapseCallback": "lightning_callback",
    "CollapseMonitor": "monitor",
    "OverfitResult": "result",
    "Recipe": "recipe",
    "TrainingWarning": "training_warning",
    "assert_memorises": "assertion",
    "overfit": "overfitting",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
