"""The outcomes as tables, and whether they are good enough."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from fractions import Fraction
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.diagnosis_cases.case import Case
from tests.diagnosis_cases.outcome import Outcome
from vaefit.vae import OverfitResult

RIGHT_AT_LEAST = Fraction(12, 14)
"""Share of the sick cases whose known cause has to be named."""


def sick_outcomes(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those whose cause is known."""
    return [o for o in outcomes if o.known is not None]


def good_enough(outcomes: Sequence[Outcome]) -> bool:
    """True where 12 of 14 causes or more were named, and no healthy run was called sick."""
    sick = sick_outcomes(outcomes)
    healthy = [o for o in outcomes if o.known is None]
    return sum(o.right for o in sick) >= RIGHT_AT_LEAST * len(sick) and all(o.right for o in healthy)


def as_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Every outcome, and the tally."""
    sick = sick_outcomes(outcomes)
    healthy = [o for o in outcomes if o.known is None]
    return {
        "passed": good_enough(outcomes),
        "sick": len(sick),
        "right": sum(o.right for o in sick),
        "healthy": len(healthy),
        "healthy_called_sick": sum(not o.right for o in healthy),
        "runs": [{**asdict(o), "right": o.right, "times": o.times} for o in outcomes],
    }


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    """Print a row for each outcome, and the tally."""
    table = Table()
    for column in ("case", "known cause", "named cause", "", "evidence", "fix"):
        table.add_column(column, overflow="fold")
    for column in ("updates", "of controls", "CPU s", "times"):
        table.add_column(column, justify="right")
    for o in outcomes:
        named = "-" if o.named is None else o.named + (f" in {o.named_where}" if o.named_where else "")
        known = "healthy" if o.known is None else o.known
        words = (o.name, known, named, "right" if o.right else "WRONG", o.evidence or "", o.fix or "")
        numbers = (f"{o.updates:,}", f"{o.control_updates:,}", f"{o.seconds:.1f}", f"{o.times:.1f}")
        table.add_row(*(Text(word) for word in (*words, *numbers)))
    console.print(table)
    found = as_json(outcomes)
    if found["sick"]:
        times = [o.times for o in sick_outcomes(outcomes)]
        console.print(f"causes named  {found['right']}/{found['sick']}, {float(RIGHT_AT_LEAST):.0%} are needed")
        median, worst = statistics.median(times), max(times)
        console.print(f"CPU time      {median:.1f} times the plain check (median; worst {worst:.1f})")
    if found["healthy"]:
        console.print(f"healthy       {found['healthy_called_sick']}/{found['healthy']} called sick, 0 are allowed")
    console.print(f"CPU           {sum(o.seconds for o in outcomes):.0f} s")


def show_mends(pairs: Sequence[tuple[Case, OverfitResult, OverfitResult]], console: Console) -> None:
    """Print each case as it is and without its cause."""
    table = Table()
    for column in ("case", "cause", "sick", "worst class", "skill", "updates", "mended", "worst class", "updates"):
        table.add_column(column, justify="right" if column in ("worst class", "skill", "updates") else "left")
    for case, sick, mended in pairs:
        table.add_row(
            Text(case.name),
            case.cause,
            sick.verdict,
            f"{sick.accuracies.worst:.3f}",
            "-" if sick.skill is None else f"{sick.skill:.3f}",
            str(sick.iterations),
            mended.verdict,
            f"{mended.accuracies.worst:.3f}",
            str(mended.iterations),
        )
    console.print(table)
