"""Is the cause named, where it is known? Runs that are sick in one way each, and healthy ones.

    python -m tests.diagnosis_cases                    each sick case with its diagnosis, and the tally
    python -m tests.diagnosis_cases --healthy          the healthy runs as well, none of which may be called sick
    python -m tests.diagnosis_cases --only beta --only rate --json sick.json
    python -m tests.diagnosis_cases --mends            no diagnosis: each case fails, and without its cause memorises

From a checkout, as some of the networks are those of examples/. Exit 1 if fewer than 12 of 14 causes are named or a
healthy run is called sick; with --mends, if a case does not fail or its mend does not memorise.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tests.diagnosis_cases.case import Case, HealthyRun
from tests.diagnosis_cases.cases import SICK
from tests.diagnosis_cases.good_runs import HEALTHY
from tests.diagnosis_cases.outcome import diagnose, plain
from tests.diagnosis_cases.tally import as_json, good_enough, show, show_mends

WIDTH = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; 1 where it is not good enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", action="append", metavar="TEXT", help="cases whose name or cause holds it; repeatable"
    )
    parser.add_argument("--healthy", action="store_true", help="the healthy runs as well")
    parser.add_argument("--mends", action="store_true", help="show that each cause is the cause")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every outcome there")
    asked = parser.parse_args(arguments)
    if asked.mends and (asked.healthy or asked.json):
        parser.error("--mends goes with --only alone: it diagnoses nothing")

    runs = _chosen((*SICK, *HEALTHY) if asked.healthy else SICK, asked.only)
    if not runs:
        parser.error(f"no case holds {' or '.join(asked.only)}")
    console, progress = Console(width=WIDTH), Console(stderr=True)
    if asked.mends:
        pairs = []
        for case in runs:
            progress.print(case.name)
            assert isinstance(case, Case)
            pairs.append((case, plain(case.build), plain(case.mend)))
        show_mends(pairs, console)
        return 0 if all(mended.passed and not sick.passed for _, sick, mended in pairs) else 1

    outcomes = []
    for case in runs:
        progress.print(case.name)
        outcomes.append(diagnose(case))
    show(outcomes, console)
    if asked.json is not None:
        asked.json.write_text(json.dumps(as_json(outcomes), indent=1) + "\n")
    return 0 if good_enough(outcomes) else 1


def _chosen(cases: Sequence[Case | HealthyRun], only: list[str] | None) -> list[Case | HealthyRun]:
    if only is None:
        return list(cases)
    words = [word.lower() for word in only]
    return [c for c in cases if any(w in f"{c.name} {getattr(c, 'cause', '')}".lower() for w in words)]


if __name__ == "__main__":
    sys.exit(main())
