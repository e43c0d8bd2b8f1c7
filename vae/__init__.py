"""Overfit check: network, recipes, loop, signals and verdict; and a monitor of training."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import DataError, RunError, SettingError, UserCodeError, VaefitError
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
    "DataError",
    "OverfitResult",
    "Recipe",
    "RunError",
    "SettingError",
    "TrainingWarning",
    "UserCodeError",
    "VaefitError",
    "assert_memorises",
    "overfit",
]

# imported on first access: counting classes needs a small part of this package, and must not wait for torch
_MODULES = {
    "RECIPES": "recipe",
    "BetaVAE": "model.beta_vae",
    "CollapseCallback": "monitor.lightning_callback",
    "CollapseMonitor": "monitor.collapse_monitor",
    "DataError": "errors",
    "OverfitResult": "fitting.result",
    "Recipe": "recipe",
    "RunError": "errors",
    "SettingError": "errors",
    "TrainingWarning": "monitor.warnings",
    "UserCodeError": "errors",
    "VaefitError": "errors",
    "assert_memorises": "overfitting",
    "overfit": "overfitting",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(_MODULES)
