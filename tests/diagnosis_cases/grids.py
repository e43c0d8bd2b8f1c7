"""Grids of the cases: synthetic, small, and the same in every run."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from tests.diagnosis_cases.case import Labels
from vaefit.cache import class_weights
from vaefit.vae.data.synthetic import SyntheticSpec, synthesise

SIDE, CLASSES, SIZE = 12, 6, 16
"""Shape of the batch that the failing cases share: side, classes, grids."""


@cache
def _corpus(height: int, width: int, classes: int) -> Labels:
    made = synthesise(SyntheticSpec(grids=64, height=height, width=width, classes=classes))
    return made.astype(np.int64)


def grids(size: int, height: int, width: int, classes: int) -> Labels:
    """Return the first `size` grids (B, H, W) of a synthetic corpus of 64."""
    found: Labels = _corpus(height, width, classes)[:size].copy()
    return found


def weights(height: int, width: int, classes: int) -> NDArray[np.float64]:
    """Return the class weights (C,) of the whole corpus."""
    return class_weights(np.bincount(_corpus(height, width, classes).reshape(-1), minlength=classes))


def shared() -> Labels:
    """Return the batch (16, 12, 12) of 6 classes."""
    return grids(SIZE, SIDE, SIDE, CLASSES)
