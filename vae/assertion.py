"""The check as an assertion, for a test suite."""

from __future__ import annotations

from typing import Any

from torch import nn

from .overfitting import overfit
from .result import OverfitResult


def assert_memorises(model: nn.Module, batch: Any, *, diagnose: bool = True, **settings: Any) -> OverfitResult:
    """Run `overfit(model, batch, **settings)` and return its result; AssertionError unless the verdict is MEMORISED.

    The message carries the verdict and its reason, the cause with its evidence, and the next step. A failing assertion
    costs up to six times a check, for the reruns that find the cause; `diagnose=False` leaves them out. Other errors
    are those of `overfit`.
    """
    result = overfit(model, batch, diagnose=diagnose, **settings)
    if not result.passed:
        cause = "" if result.diagnosis is None else f"Cause: {result.diagnosis}. "
        raise AssertionError(f"{result.verdict}: {result.judgement.reason}. {cause}{result.judgement.next}")
    return result
