"""Sick cases of good networks and settings: inputs that do not tell what is asked of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.diagnosis_cases.bad_settings import GOOD
from tests.diagnosis_cases.case import Build, Case, Labels, subject
from tests.diagnosis_cases.grids import CLASSES, SIDE, shared
from vaefit.vae.model.beta_vae import BetaVAE


def _repeated() -> Labels:
    """Four inputs, each with four targets: the index of the input was divided once too often."""
    return shared()[np.arange(16) // 4]


def _blank() -> Labels:
    """Inputs of background alone: the crop missed."""
    return np.zeros_like(shared())


def _binary() -> Labels:
    """Inputs whose colours are lost; see `_recoloured`."""
    return np.minimum(shared()[np.arange(16) % 4], 1)


def _recoloured() -> Labels:
    """Four grids, each in four colourings: without its colours an input has four answers."""
    picked = shared()[np.arange(16) % 4]
    turned = (picked - 1 + (np.arange(16) // 4)[:, None, None]) % (CLASSES - 1) + 1
    return np.where(picked == 0, 0, turned)


def _pair(inputs: Callable[[], Labels], targets: Callable[[], Labels]) -> Build:
    """Our own network, fed with inputs and asked for targets."""
    return subject(lambda: BetaVAE(CLASSES, SIDE, SIDE), inputs, GOOD, targets=targets)


CASES = (
    Case("four targets an input", "data problem", None, _pair(_repeated, shared), _pair(shared, shared)),
    Case("blank inputs", "data problem", None, _pair(_blank, shared), _pair(shared, shared)),
    Case(
        "inputs without their colours",
        "data problem",
        None,
        _pair(_binary, _recoloured),
        _pair(_recoloured, _recoloured),
    ),
)
