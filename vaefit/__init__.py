"""vaefit: can this model, with this loss and these class weights, memorise one batch? And if not, why not?"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vaefit.cache import class_counts, class_weights
    from vaefit.kernels import FocalLoss, confusion_counts, focal_loss
    from vaefit.vae import CollapseMonitor, assert_memorises, overfit

    __version__: str

__all__ = [
    "CollapseMonitor",
    "FocalLoss",
    "__version__",
    "assert_memorises",
    "class_counts",
    "class_weights",
    "confusion_counts",
    "focal_loss",
    "overfit",
]

# imported on first access: `vaefit-cli --help` and counting must not wait for torch
_MODULES = {
    "CollapseMonitor": "vaefit.vae",
    "FocalLoss": "vaefit.kernels",
    "assert_memorises": "vaefit.vae",
    "class_counts": "vaefit.cache",
    "class_weights": "vaefit.cache",
    "confusion_counts": "vaefit.kernels",
    "focal_loss": "vaefit.kernels",
    "overfit": "vaefit.vae",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from vaefit.vae.environment.hardware import vaefit_version

        return vaefit_version()
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
