"""Drills with damaged files, killed processes, and data that change behind the cache's back.

    python -m tests.fault_injection                          every drill, some minutes each
    python -m tests.fault_injection damage --count 1000 --seed 1
    python -m tests.fault_injection damage --seed 1 --only 77      one damaged file again
    python -m tests.fault_injection kills crowd edits --json

`damage` compares files damaged at random with an independent read by plain h5py, `numpy` numpy's files with numpy's own
read; `kills` sends SIGKILL during scans and cache writes; `crowd` starts many processes at once; `edits` changes data,
names and places; `training` sends SIGKILL to training runs and resumes them, `interrupted` to checks, sweeps and
counts; `rivals` starts several commands in one run folder; `mutants` damages run folders, weights files and cached
files. Exit 1 if anything is bad. For Linux.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.fault_injection.concurrency import crowd
from tests.fault_injection.edits import EDITS
from tests.fault_injection.fuzz import damage_drill
from tests.fault_injection.interrupted import command_kills
from tests.fault_injection.kills import scan_kills, write_kills
from tests.fault_injection.mutants import mutants
from tests.fault_injection.numpy_files import numpy_drill
from tests.fault_injection.places import PLACES
from tests.fault_injection.rivals import rivals
from tests.fault_injection.sandbox import Forks
from tests.fault_injection.scene import Scene, WrongError
from tests.fault_injection.tally import Tally, show
from tests.fault_injection.training import training_kills

DRILLS = ("damage", "numpy", "kills", "crowd", "edits", "training", "interrupted", "rivals", "mutants")
COUNTS = {
    "damage": 1000, "numpy": 2500, "kills": 200, "crowd": 4, "training": 20, "interrupted": 50, "rivals": 200,
    "mutants": 2000,
}  # fmt: skip
QUICK = {
    "damage": 100, "numpy": 250, "kills": 4, "crowd": 1, "training": 1, "interrupted": 3, "rivals": 5, "mutants": 20,
}  # fmt: skip


def edits(settle: bool = True) -> Tally:
    """Run each change once, and with `settle` once more on files old enough that their times are believed."""
    tally = Tally("edits", "each on files just written" + (", and on old ones" if settle else ""))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # another user must be able to look at the files
        with Forks(Path(folder) / "home") as forks:
            for drill in (*EDITS, *PLACES):
                for old in (False, True) if settle else (False,):
                    place = Path(folder) / f"{drill.__name__} {old:d}"
                    place.mkdir()
                    words = f"{(drill.__doc__ or '').rstrip('.')} ({'old' if old else 'new'} files)"
                    try:
                        drill(Scene(place, forks, old))
                    except WrongError as error:
                        tally.add("failed", True, f"{words}: {error}")
                    else:
                        tally.add("passed", example=words)
    return tally.done()


def drills(arguments: argparse.Namespace) -> Iterator[Tally]:
    """The drills asked for, one after another."""
    seed, usual = arguments.seed, QUICK if arguments.quick else COUNTS
    for name in arguments.drill or DRILLS:
        count = arguments.count or usual.get(name, 0)
        if name == "damage":
            yield damage_drill(count, seed, arguments.only, arguments.keep)
        elif name == "numpy":
            yield numpy_drill(count, seed, arguments.only, arguments.keep)
        elif name == "kills":
            yield scan_kills(count, seed, arguments.chunks)
            yield write_kills(count, seed)
        elif name == "crowd":
            yield crowd(count, seed, arguments.processes)
        elif name == "training":
            yield training_kills(count, seed)
        elif name == "interrupted":
            yield command_kills(count, seed)
        elif name == "rivals":
            yield rivals(count, seed)
        elif name == "mutants":
            yield mutants(count, seed, arguments.only)
        else:
            yield edits(not arguments.quick)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is no count: pass 1 or more")
    return number


def main() -> int:
    """Run the drills; 1 if anything is bad."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("drill", nargs="*", help=f"any of {', '.join(DRILLS)}; all where left out")
    parser.add_argument("--count", type=_positive, help="damaged files, kills of each kind, rounds of a crowd")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="K", help="the damaged file of this number only")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where damaged files go that ended badly")
    parser.add_argument("--chunks", type=_positive, default=20_000, help="size of the killed scan's dataset, in 32 KiB")
    parser.add_argument("--processes", type=_positive, default=16, help="in a round of a crowd")
    parser.add_argument("--quick", action="store_true", help="fewer of each, edits of files just written only")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if unknown := set(arguments.drill) - set(DRILLS):
        parser.error(f"no such drill: {', '.join(sorted(unknown))}")

    tallies = []
    for tally in drills(arguments):
        tallies.append(tally)
        if not arguments.json:
            show([tally])
    if arguments.json:
        print(json.dumps([tally.as_json() for tally in tallies], indent=1))
    return 1 if any(tally.bad for tally in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())
