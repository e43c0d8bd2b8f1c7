"""The overfit check: the network, the recipes, the loop, the signals and the verdict; and a watch over training."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .fitting.result import OverfitResult
    from .model.beta_vae import BetaVAE
    from .monitor.collapse_monitor import CollapseMonitor
    from .monitor.lightning_callback import CollapseCallback as CollapseCallback
    from .monitor.warnings import TrainingWarning
    from .overfitting import assert_memorises, overfit
    from .recipe import RECIPES, Recipe

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
    "BetaVAE": "model.beta_vae",
    "CollapseCallback": "monitor.lightning_callback",
    "CollapseMonitor": "monitor.collapse_monitor",
    "OverfitResult": "fitting.result",
    "Recipe": "recipe",
    "TrainingWarning": "monitor.warnings",
    "assert_memorises": "overfitting",
    "overfit": "overfitting",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
