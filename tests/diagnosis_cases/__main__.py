"""Test whether the diagnosis names the cause of runs that fail for one known cause, and leaves passing runs alone.

    python -m tests.diagnosis_cases                    diagnose each failing case, and count the right causes
    python -m tests.diagnosis_cases --passing          also the passing runs, which must not get a cause
    python -m tests.diagnosis_cases --only beta --only rate --json failing.json
    python -m tests.diagnosis_cases --fixes            no diagnosis: each case must fail, and memorise without its cause

Run it from the root of a checkout, because some of the networks are in examples/. The exit code is 1 if fewer than 12
of 14 causes are right or a passing run gets a cause; with --fixes, if a case passes or its fix does not memorise.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tests.diagnosis_cases.case import Case, PassingRun
from tests.diagnosis_cases.cases import FAILING, PASSING
from tests.diagnosis_cases.outcome import as_json, diagnose, good_enough, plain, show, show_fixes

WIDTH = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen cases; return 1 if the diagnosis is not good enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", action="append", metavar="TEXT", help="only cases whose name or cause contains TEXT; repeatable"
    )
    parser.add_argument("--passing", action="store_true", help="also the passing runs")
    parser.add_argument("--fixes", action="store_true", help="run each case with and without its cause; no diagnosis")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every outcome to FILE")
    options = parser.parse_args(arguments)
    if options.fixes and (options.passing or options.json):
        parser.error("--fixes can be combined with --only alone, because it makes no diagnosis")

    runs = _chosen((*FAILING, *PASSING) if options.passing else FAILING, options.only)
    if not runs:
        parser.error(f"no case contains {' or '.join(options.only)}")
    console, progress = Console(width=WIDTH), Console(stderr=True)
    if options.fixes:
        pairs = []
        for case in runs:
            progress.print(case.name)
            assert isinstance(case, Case)
            pairs.append((case, plain(case.build), plain(case.fixed)))
        show_fixes(pairs, console)
        return 0 if all(fixed.passed and not failing.passed for _, failing, fixed in pairs) else 1

    outcomes = []
    for case in runs:
        progress.print(case.name)
        outcomes.append(diagnose(case))
    show(outcomes, console)
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(outcomes), indent=1) + "\n")
    return 0 if good_enough(outcomes) else 1


def _chosen(cases: Sequence[Case | PassingRun], only: list[str] | None) -> list[Case | PassingRun]:
    if only is None:
        return list(cases)
    words = [word.lower() for word in only]
    return [c for c in cases if any(w in f"{c.name} {getattr(c, 'cause', '')}".lower() for w in words)]


if __name__ == "__main__":
    sys.exit(main())
