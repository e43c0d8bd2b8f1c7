"""The recipes of normal training."""

from __future__ import annotations

from ..recipe import Recipe

RECIPES: dict[str, Recipe] = {
    "default": Recipe(lr_decay="cosine", warmup=100, stop_when="never"),
    "adam": Recipe(optimiser="adam", lr_decay="cosine", warmup=100, stop_when="never"),
}
