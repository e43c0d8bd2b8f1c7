"""Failing cases with good networks and settings: the inputs do not determine the targets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.diagnosis_cases.bad_settings import GOOD
from tests.diagnosis_cases.case import Build, Case, Labels, seeded_build
from tests.diagnosis_cases.grids import CLASSES, SIDE, shared
from vaefit.vae.model.beta_vae import BetaVAE


def _repeated() -> Labels:
    """Return four inputs, each with four targets: the index of the input is divided once too often."""
    return shared()[np.arange(16) // 4]


def _blank() -> Labels:
    """Return inputs of background alone, as after a wrong crop."""
    return np.zeros_like(shared())


def _binary() -> Labels:
    """Return the inputs of `_recoloured` without their colours."""
    return np.minimum(shared()[np.arange(16) % 4], 1)


def _recoloured() -> Labels:
    """Return four grids, each in four colourings: without colours an input has four targets."""
    picked = shared()[np.arange(16) % 4]
    turned = (picked - 1 + (np.arange(16) // 4)[:, None, None]) % (CLASSES - 1) + 1
    return np.where(picked == 0, 0, turned)


def _pair(inputs: Callable[[], Labels], targets: Callable[[], Labels]) -> Build:
    """Build the built-in network with inputs and targets."""
    return seeded_build(lambda: BetaVAE(CLASSES, SIDE, SIDE), inputs, GOOD, targets=targets)


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
