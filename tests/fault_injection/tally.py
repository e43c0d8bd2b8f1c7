"""Tally of a drill: the number of cases by how they ended, and which ends are faults."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

SHOWN = 12
"""Examples of one end in the table; all are in the JSON."""


@dataclass
class Tally:
    """Cases of one drill by how they ended."""

    name: str
    about: str
    """The figures that the drill was run with."""
    ends: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    """The part of `ends` that must not be."""
    examples: list[tuple[str, str]] = field(default_factory=list)
    """(end, a line) of what is bad or worth a look."""
    figures: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def add(self, end: str, bad: bool = False, example: str = "") -> None:
        """Add a case; `example` names it."""
        self.ends[end] += 1
        if bad:
            self.bad[end] += 1
        if example:
            self.examples.append((end, example))

    def done(self) -> Tally:
        """Take the time."""
        self.figures["seconds"] = round(time.monotonic() - self.started, 1)
        return self

    def as_json(self) -> dict[str, Any]:
        """Everything, for `--json`."""
        return {
            "drill": self.name, "about": self.about, "cases": self.ends.total(), "bad": self.bad.total(),
            "ends": dict(self.ends.most_common()), "bad_ends": dict(self.bad), "figures": self.figures,
            "examples": [f"{end}: {example}" for end, example in self.examples],
        }  # fmt: skip


def show(tallies: Iterable[Tally]) -> None:
    """A table a drill on stdout, and the examples below it."""
    console = Console(highlight=False, soft_wrap=True)
    for tally in tallies:
        table = Table(title=f"{tally.name}: {tally.about}", title_justify="left")
        table.add_column("cases", justify="right")
        table.add_column("how they ended")
        table.add_column("")
        for end, count in tally.ends.most_common():
            table.add_row(str(count), end, "BAD" if tally.bad[end] else "")
        console.print(table)
        figures = ", ".join(f"{name} {value:g}" for name, value in tally.figures.items())
        console.print(f"{tally.ends.total()} cases, {tally.bad.total()} bad; {figures}", markup=False)
        shown: Counter[str] = Counter()
        for end, example in tally.examples:
            shown[end] += 1
            if shown[end] <= SHOWN:
                console.print(f"  {end}: {example}", markup=False)
        for end, count in shown.items():
            if count > SHOWN:
                console.print(f"  {end}: {count - SHOWN} more, with --json", markup=False)
        console.print()
