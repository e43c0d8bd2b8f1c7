"""One case run and diagnosed: what was named against what is known."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.diagnosis_cases.case import Build, Case, HealthyRun
from vaefit.vae import OverfitResult, overfit
from vaefit.vae.fitting.result import Record
from vaefit.vae.metrics.diagnosis import Cause
from vaefit.vae.metrics.verdict import Verdict


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
    plain_seconds: float
    """CPU, of the run itself."""
    seconds: float
    """CPU, of the run and its controls."""

    @property
    def right(self) -> bool:
        """The known cause was named; of a healthy run, none, as it ended MEMORISED."""
        return self.named == self.known and (self.verdict == "MEMORISED") == (self.known is None)

    @property
    def times(self) -> float:
        """CPU time with the controls over that of the run itself."""
        return self.seconds / self.plain_seconds


def diagnose(case: Case | HealthyRun) -> Outcome:
    """Run a case with its diagnosis."""
    subject = case.build()
    clock = _Clock()
    result = overfit(subject.model, subject.batch, diagnose=True, on_step=clock.mark, **subject.keywords())
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
        plain_seconds=clock.last_step,
        seconds=clock.now(),
    )


def plain(build: Build) -> OverfitResult:
    """Run a subject without a diagnosis."""
    subject = build()
    return overfit(subject.model, subject.batch, **subject.keywords())


class _Clock:
    """CPU seconds since it was made, and when the last step of the run itself was."""

    def __init__(self) -> None:
        self._start = time.process_time()
        self.last_step = 0.0

    def now(self) -> float:
        return time.process_time() - self._start

    def mark(self, _: Record) -> None:
        self.last_step = self.now()
