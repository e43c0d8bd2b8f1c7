"""Diagnosis of a failed run: the cause, two numbers as evidence, and the change that fixes it."""

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
    """Measurement of the failed model, without training."""

    name: str
    """Such as `use of the latent`."""
    found: str
    """The measurement, as text with numbers."""
    suspicious: bool
    """True if it may explain the failure."""


@dataclass(frozen=True)
class Control:
    """Rerun of the failed run with one change, from the same initial parameters."""

    name: str
    """Name of the change."""
    option: str
    """Command-line option of the change."""
    verdict: Verdict
    updates: int
    worst_class: float
    """Accuracy of the worst class at the end, as are the next two."""
    skill: float | None
    retrieval: float | None

    @property
    def mended(self) -> bool:
        """True if the rerun memorises the batch."""
        return self.verdict == "MEMORISED"


@dataclass(frozen=True)
class Diagnosis:
    """Cause of a run that did not memorise its batch, and the measurements and reruns that show it."""

    cause: Cause
    where: str | None
    """The layer of the cause, such as one without a gradient; None if the cause names no layer."""
    evidence: str
    """Two numbers with their names: of the failed run, and of the rerun with the fix."""
    fix: str | None
    """The option that fixed the run, or a sentence if the model itself must change; None if no fix was found."""
    findings: tuple[Finding, ...] = ()
    controls: tuple[Control, ...] = ()
    """Reruns in their order."""
    skipped: tuple[str, ...] = ()
    """Changes without a rerun: the budget of updates was spent, or the rerun failed."""

    @property
    def advice(self) -> str:
        """The fix as a sentence; without a fix, the next step."""
        if self.fix is None:
            return "No rerun fixed it: look at the marked measurements above, and try --batch-size 2."
        return f"Try {self.fix}." if self.fix.startswith("--") else self.fix

    def __str__(self) -> str:
        """Return one line: cause and evidence."""
        where = f" in {self.where}" if self.where else ""
        return f"{self.cause}{where}: {self.evidence}"
