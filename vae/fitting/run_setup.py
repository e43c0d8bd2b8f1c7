"""What is known of a run when its first step begins, beside its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..objective.agreement import Agreement

if TYPE_CHECKING:
    from ..model.adapter import Adapter
    from .lr_range_test import RangeTest


@dataclass(frozen=True)
class StepChoice:
    """How the steps are made and the reason for it; `str()` gives the words of a run header."""

    name: Literal["one by one", "graph"]
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


@dataclass(frozen=True)
class RunHeader:
    """What is known when the model has been looked at."""

    preflight: Agreement | None
    """None where no gradient of these settings is finite: nothing can be compared, and the verdict tells of it."""
    steps: StepChoice
    model: str
    """Its class and size, in words."""
    adapter: Adapter
    """How the model is called."""
    range_test: RangeTest | None
    """How the rate was chosen; None where the recipe gave it."""
