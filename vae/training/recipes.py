"""The recipes of normal training."""

from __future__ import annotations

from dataclasses import replace

from ..recipe import Recipe

_TRAINING = Recipe(lr_decay="cosine", warmup=100, stop_when="never")

RECIPES: dict[str, Recipe] = {
    "default": _TRAINING,
    "adam": replace(_TRAINING, optimiser="adam"),
    # cross-entropy with weights nearer to one another: more pixels are right, and the rare classes still are found
    "soft": replace(_TRAINING, gamma=0.0, weights_power=0.4, lr=1.5e-3, warmup=200),
}
"""`default` has the loss and the weights of the check's own; docs/method.md tells what each comes to."""
