"""Outcomes of diagnosed cases: the named cause against the known one, tables, and the pass criterion."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.diagnosis_cases.case import Build, Case, PassingRun
from vaefit.vae import OverfitResult, overfit
from vaefit.vae.fitting.result import Record
from vaefit.vae.metrics.diagnosis import Cause
from vaefit.vae.metrics.verdict import Verdict

RIGHT_AT_LEAST = Fraction(12, 14)
"""Least share of the failing cases whose named cause is right."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of one run. A passing run has no known cause and must get no named one."""

    name: str
    known: Cause | None
    where: str | None
    verdict: Verdict
    named: Cause | None
    """None if the run has no diagnosis."""
    named_where: str | None
    evidence: str | None
    fix: str | None
    updates: int
    """Updates of the run itself."""
    control_updates: int
    """Updates of all its controls together."""
    plain_seconds: float
    """CPU seconds of the run itself."""
    seconds: float
    """CPU seconds of the run and its controls."""

    @property
    def right(self) -> bool:
        """True if the named cause is the known one; for a passing run, if it memorised and has no cause."""
        return self.named == self.known and (self.verdict == "MEMORISED") == (self.known is None)

    @property
    def times(self) -> float:
        """CPU time with the controls divided by that of the run itself."""
        return self.seconds / self.plain_seconds


def diagnose(case: Case | PassingRun) -> Outcome:
    """Run a case with its diagnosis and return the outcome."""
    call = case.build()
    clock = _Clock()
    result = overfit(call.model, call.batch, diagnose=True, on_step=clock.mark, **call.keywords())
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
    """Make a run without a diagnosis and return its result."""
    call = build()
    return overfit(call.model, call.batch, **call.keywords())


class _Clock:
    """Clock of CPU seconds since its construction; marks the last step of the run itself."""

    def __init__(self) -> None:
        self._start = time.process_time()
        self.last_step = 0.0

    def now(self) -> float:
        return time.process_time() - self._start

    def mark(self, _: Record) -> None:
        self.last_step = self.now()


def failing_outcomes(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes whose cause is known."""
    return [o for o in outcomes if o.known is not None]


def good_enough(outcomes: Sequence[Outcome]) -> bool:
    """Return True if at least 12 of 14 causes are right, and no passing run has a cause."""
    failing = failing_outcomes(outcomes)
    passing = [o for o in outcomes if o.known is None]
    return sum(o.right for o in failing) >= RIGHT_AT_LEAST * len(failing) and all(o.right for o in passing)


def as_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return every outcome, and the counts of right ones, as JSON values."""
    failing = failing_outcomes(outcomes)
    passing = [o for o in outcomes if o.known is None]
    return {
        "passed": good_enough(outcomes),
        "failing": len(failing),
        "right": sum(o.right for o in failing),
        "passing": len(passing),
        "passing_with_a_cause": sum(not o.right for o in passing),
        "runs": [{**asdict(o), "right": o.right, "times": o.times} for o in outcomes],
    }


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    """Print one row for each outcome, and the counts of right ones."""
    table = Table()
    for column in ("case", "known cause", "named cause", "", "evidence", "fix"):
        table.add_column(column, overflow="fold")
    for column in ("updates", "of controls", "CPU s", "times"):
        table.add_column(column, justify="right")
    for o in outcomes:
        named = "-" if o.named is None else o.named + (f" in {o.named_where}" if o.named_where else "")
        known = "passing" if o.known is None else o.known
        words = (o.name, known, named, "right" if o.right else "WRONG", o.evidence or "", o.fix or "")
        numbers = (f"{o.updates:,}", f"{o.control_updates:,}", f"{o.seconds:.1f}", f"{o.times:.1f}")
        table.add_row(*(Text(word) for word in (*words, *numbers)))
    console.print(table)
    found = as_json(outcomes)
    if found["failing"]:
        times = [o.times for o in failing_outcomes(outcomes)]
        console.print(f"causes named  {found['right']}/{found['failing']}, {float(RIGHT_AT_LEAST):.0%} are needed")
        median, worst = statistics.median(times), max(times)
        console.print(f"CPU time      {median:.1f} times the plain check (median; worst {worst:.1f})")
    if found["passing"]:
        console.print(f"passing       {found['passing_with_a_cause']}/{found['passing']} got a cause, 0 are allowed")
    console.print(f"CPU           {sum(o.seconds for o in outcomes):.0f} s")


def show_fixes(pairs: Sequence[tuple[Case, OverfitResult, OverfitResult]], console: Console) -> None:
    """Print each case with and without its cause."""
    table = Table()
    for column in ("case", "cause", "failing", "worst class", "skill", "updates", "fixed", "worst class", "updates"):
        table.add_column(column, justify="right" if column in ("worst class", "skill", "updates") else "left")
    for case, failing, fixed in pairs:
        table.add_row(
            Text(case.name),
            case.cause,
            failing.verdict,
            f"{failing.accuracies.worst:.3f}",
            "-" if failing.skill is None else f"{failing.skill:.3f}",
            str(failing.iterations),
            fixed.verdict,
            f"{fixed.accuracies.worst:.3f}",
            str(fixed.iterations),
        )
    console.print(table)
