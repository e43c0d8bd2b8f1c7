"""Files damaged at random: either the counts of an independent read with plain h5py, or a clear error."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from tests.fault_injection.corruption import Whole, damage
from tests.fault_injection.files import DATASET, MAIN, build
from tests.fault_injection.plain import plain_counts
from tests.fault_injection.protocol import Do, Report, Task
from tests.fault_injection.sandbox import Forks
from tests.fault_injection.tally import Tally

CPU_S = 4
WALL_S = 40.0
MEMORY = 512 << 20
"""Limits of one read, of ours and of h5py's alike. The whole files hold less than 60 KiB and are read in 20 ms."""
LONGEST_ERROR = 1500

AGREED = "the counts that h5py reads"
SHARED_ERROR = "a clear error, and h5py fails too"
ERROR_LABEL = "a clear error: h5py reads labels outside 0..255"
ERROR_ALONE = "a clear error, where h5py reads on"
UNCHECKED = "counts, where h5py runs out of time or memory"
UNHARMED = "the counts of the undamaged file, where h5py reads others"
CRASH_SHARED = "a crash that h5py shares"
TIME_SHARED = "out of time in HDF5, which cannot even open the dataset"
ONE_OF_SEVERAL = "one of the counts that h5py reads: it has others for other slices"
NONE_OF_SEVERAL = "other counts than h5py reads, which has others for other slices"
WORTH_A_LOOK = (UNCHECKED, UNHARMED, CRASH_SHARED, TIME_SHARED, ONE_OF_SEVERAL, NONE_OF_SEVERAL, ERROR_ALONE)
BAD = {
    "traceback": "a traceback",
    "time": "out of time",
    "memory": "out of memory",
    "crash": "a crash that h5py does not share",
    "other": "other counts than h5py reads",
    "more": "counts, where h5py fails",
    "several lines": "an error that is not one plain line",
}


@dataclass(frozen=True)
class Layout:
    """The undamaged files of a layout, the main one first, and the counts of its cells."""

    files: list[Whole]
    counts: dict[int, int]

    @classmethod
    def of(cls, paths: list[Path]) -> Layout:
        """Look at files of `files`."""
        start = Path.cwd()
        os.chdir(paths[0].parent)
        try:
            return cls([Whole.of(path) for path in paths], plain_counts(MAIN, DATASET))
        finally:
            os.chdir(start)


@dataclass(frozen=True)
class Case:
    """Damaged file of a seed and number, and how the reads of it ended."""

    number: int
    layout: str
    words: str
    """What was done to it."""
    dataset: str | None
    end: str
    bad: bool
    ours: Report
    plain: Report


def damage_drill(count: int, seed: int, only: int | None = None, kept: Path | None = None, jobs: int = 2) -> Tally:
    """Read `count` damaged files, or only the one of number `only`; files that end badly are copied to `kept`."""
    kept = kept or Path(tempfile.gettempdir()) / f"vaefit-faults-{seed}"
    tally = Tally("damage", f"{count} files, seed {seed}" if only is None else f"file {only} of seed {seed}")
    with tempfile.TemporaryDirectory() as folder:
        whole = build(Path(folder) / "whole")
        names = list(whole) if only is None else [list(whole)[only % len(whole)]]
        layouts = {name: Layout.of(whole[name]) for name in names}
        numbers = range(count) if only is None else [only]
        for case in _cases(layouts, Path(folder), numbers, seed, jobs):
            note = f"seed {seed}, file {case.number}, {case.layout}, {case.words}"
            if case.bad:
                place = kept / str(case.number)
                shutil.rmtree(place, ignore_errors=True)
                shutil.copytree(Path(folder) / f"{case.number}", place)
                note += f"; ours {_short(case.ours)}; h5py {_short(case.plain)}; kept in {place}"
            elif case.end in WORTH_A_LOOK or only is not None:
                note += f"; ours {_short(case.ours)}; h5py {_short(case.plain)}"
            else:
                note = ""
            tally.add(case.end, case.bad, note)
            for name, value in (
                ("most MiB of ours", case.ours.peak / 2**20),
                ("most seconds of ours", case.ours.seconds),
                ("most MiB of h5py", case.plain.peak / 2**20),
            ):
                tally.figures[name] = max(tally.figures.get(name, 0.0), round(value, 2))
            shutil.rmtree(Path(folder) / f"{case.number}")
    return tally.done()


def _cases(
    layouts: dict[str, Layout], folder: Path, numbers: range | list[int], seed: int, jobs: int
) -> Iterator[Case]:
    with ExitStack() as stack:
        idle: SimpleQueue[Forks] = SimpleQueue()
        for _ in range(min(jobs, len(numbers))):
            idle.put(stack.enter_context(Forks(checked=True)))

        def one(number: int) -> Case:
            forks = idle.get()
            try:
                return _case(layouts, folder / f"{number}", number, seed, forks)
            finally:
                idle.put(forks)

        yield from stack.enter_context(ThreadPoolExecutor(jobs)).map(one, numbers)


def _case(layouts: dict[str, Layout], place: Path, number: int, seed: int, forks: Forks) -> Case:
    rng = np.random.default_rng([seed, number])
    layout = list(layouts)[number % len(layouts)]  # the only one where there is but one
    whole, files = layouts[layout], layouts[layout].files
    hurt = files[0] if rng.random() < 0.6 else files[int(rng.integers(len(files)))]
    data, words = damage(hurt, rng)
    if hurt is not files[0]:
        words += f" of {hurt.path.name}"
    place.mkdir()
    for file in files:
        (place / file.path.name).write_bytes(data if file is hurt else file.data)
    # a name finds the dataset by its link, no name looks at everything in the file
    dataset = None if rng.random() < 0.2 else DATASET

    def run(do: Do) -> Report:
        return forks.run(Task(do, MAIN, str(place), dataset, cpu_s=CPU_S, wall_s=WALL_S, memory=MEMORY))

    plain, ours = run("slices"), run("ours")
    end, bad = judge(plain, ours)
    if end == BAD["other"]:
        others = [run("chunks"), run("whole")]
        if any(ours.counts == other.counts for other in others):
            end, bad = ONE_OF_SEVERAL, False
        elif any(plain.counts != other.counts for other in others):
            end, bad = NONE_OF_SEVERAL, False
        elif ours.counts == whole.counts:
            # in older chunk indices a number that only the lookup uses may be wrong; no list of the chunks shows it
            end, bad = UNHARMED, False
    elif ours.end == plain.end == "time" and run("open").end == "time":
        end, bad = TIME_SHARED, False
    return Case(number, layout, words, dataset, end, bad, ours, plain)


def judge(plain: Report, ours: Report) -> tuple[str, bool]:
    """Compare how our read and that of h5py ended; True where that is a fault."""
    if ours.end == "error":
        if not ours.text.isprintable() or len(ours.text) > LONGEST_ERROR:
            return BAD["several lines"], True
        if plain.end != "counts":
            return SHARED_ERROR, False
        return (ERROR_LABEL if any(not 0 <= label < 256 for label in plain.counts) else ERROR_ALONE), False
    if ours.end == "counts":
        if plain.end in ("time", "memory"):
            return UNCHECKED, False
        if plain.end != "counts":
            return BAD["more"], True
        return (AGREED, False) if plain.counts == ours.counts else (BAD["other"], True)
    if ours.end == "crash" and plain.end == "crash":
        return CRASH_SHARED, False
    return BAD[ours.end], True


def _short(report: Report) -> str:
    if report.end == "counts":
        return f"counts {report.counts}"[:160]
    lines = report.text.strip().splitlines() or [""]
    return f"{report.end}: {lines[-1]}"[:240]
