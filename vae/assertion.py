"""The check as an assertion, for a test suite."""

from __future__ import annotations

from typing import Any

from torch import nn

from .overfitting import overfit
from .result import OverfitResult


def assert_memorises(model: nn.Module, batch: Any, **settings: Any) -> OverfitResult:
    """Run `overfit(model, batch, **settings)` and return its result; AssertionError unless the verdict is MEMORISED.

    The message carries the verdict, its reason and the next step. Other errors are those of `overfit`.
    """
    result = overfit(model, batch, **settings)
    if not result.passed:
        raise AssertionError(f"{result.verdict}: {result.judgement.reason}. {result.judgement.next}")
    return result
