"""One case run and diagnosed: what was named against what is known."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from vaefit.vae import OverfitResult, overfit
from vaefit.vae.diagnosis import Cause
from vaefit.vae.verdict import Verdict

from .case import Build, Case, HealthyRun, Subject


@dataclass(frozen=True)
class Outcome:
    """What became of one run; of a healthy one `known` is None, and so must `named` be."""

    name: str
    known: Cause | None
    where: str | None
    verdict: Verdict
    named: Cause | None
    """None where the run was not called sick."""
    named_where: str | None
    evidence: str | None
    fix: str | None
    updates: int
    """Of the run itself."""
    control_updates: int
    """Of all its controls together."""
    seconds: float
    """CPU, of both."""

    @property
    def right(self) -> bool:
        """The known cause was named; of a healthy run, none, as it ended MEMORISED."""
        return self.named == self.known and (self.verdict == "MEMORISED") == (self.known is None)

    @property
    def ratio(self) -> float:
        """Updates of the controls for each of the run."""
        return self.control_updates / max(self.updates, 1)


def diagnose(case: Case | HealthyRun) -> Outcome:
    """Run a case with its diagnosis."""
    start = time.process_time()
    result = _diagnosed(case.build())
    seconds = time.process_time() - start
    known, where = (case.cause, case.where) if isinstance(case, Case) else (None, None)
    found = result.diagnosis
    return Outcome(
        name=case.name,
        known=known,
        where=where,
        verdict=result.verdict,
        named=None if found is None else found.cause,
        named_where=None if found is None else found.where,
        evidence=None if found is None else found.evidence,
        fix=None if found is None else found.fix,
        updates=result.iterations,
        control_updates=0 if found is None else sum(control.updates for control in found.controls),
        seconds=seconds,
    )


def plain(build: Build) -> OverfitResult:
    """Run a subject without a diagnosis."""
    subject = build()
    return overfit(subject.model, subject.batch, **subject.keywords())


def _diagnosed(subject: Subject) -> OverfitResult:
    keywords: dict[str, Any] = {"diagnose": True, **subject.keywords()}
    return overfit(subject.model, subject.batch, **keywords)
