"""Why a run failed: the cause, two numbers that show it, and the change that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .verdict import Verdict

Cause = Literal[
    "output collapse",
    "latent ignored",
    "KL too strong",
    "initialisation",
    "learning rate",
    "loss or weights wrong",
    "no gradient",
    "too little capacity",
    "too few steps",
    "data problem",
    "unknown",
]


@dataclass(frozen=True)
class Finding:
    """Something measured on the failed model itself, without training."""

    name: str
    """Such as `z shuffled across the batch`."""
    found: str
    """What was measured, in words and numbers."""
    suspicious: bool
    """It may explain the failure."""


@dataclass(frozen=True)
class Control:
    """The run again with one thing changed, from the same initial parameters."""

    name: str
    """What was changed, in words."""
    option: str
    """The change as an option to paste."""
    verdict: Verdict
    updates: int
    worst_class: float
    """Accuracy of the worst class at the end, as are the next two."""
    skill: float | None
    retrieval: float | None

    @property
    def mended(self) -> bool:
        """True where the run now memorises the batch."""
        return self.verdict == "MEMORISED"


@dataclass(frozen=True)
class Diagnosis:
    """What the controls say of a run that did not memorise its batch."""

    cause: Cause
    where: str | None
    """The layer without a gradient, or what else the cause is about; None where the cause says all."""
    evidence: str
    """Two numbers and what they are of: with what failed, and with what mended it."""
    fix: str | None
    """The change that mended it, as an option to paste; a sentence, where it is the model's own; None where none was
    found."""
    findings: tuple[Finding, ...] = ()
    controls: tuple[Control, ...] = ()
    """In the order in which they ran."""
    skipped: tuple[str, ...] = ()
    """Controls that were not run: the budget of updates was spent, or they could not be made."""

    @property
    def advice(self) -> str:
        """The fix as a sentence; where none was found, how to go on."""
        if self.fix is None:
            return "Nothing that was tried mended it: look at what is marked above, and try --batch-size 1."
        return f"Try {self.fix}." if self.fix.startswith("--") else self.fix

    def __str__(self) -> str:
        """One line: cause and evidence."""
        where = f" in {self.where}" if self.where else ""
        return f"{self.cause}{where}: {self.evidence}"
