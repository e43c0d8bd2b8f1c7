"""Kills at random moments of a scan and of a cache write: no torn cached file, and the next run is right."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.fault_injection.dataset import DATASET, Slow
from tests.fault_injection.protocol import Do, Report, Task
from tests.fault_injection.sandbox import Forks
from tests.fault_injection.tally import Tally
from tests.fault_injection.task import IGNORED

SAVE_EVERY = 0.05
"""Seconds. A scan is saved that often here, so that most kills leave a partial file behind."""
WRITES = 4
"""So many counts and writes one after another, at most, before the kill."""
EDITED = 0.25
"""Of the kills, so many are followed by an edit of the data, after which nothing that was kept is true."""


@dataclass(frozen=True)
class Kill:
    """Files that one kill left, and the end of the run after it."""

    end: str
    bad: bool
    words: str
    left: int
    """Temporary files that were left."""
    share: float
    """The next run's time, of that of a whole scan."""


def scan_kills(count: int, seed: int, chunks: int = 20_000, jobs: int = 2) -> Tally:
    """Kill `count` scans of a dataset of that many chunks of 32 KiB at random moments."""
    return _drill("kills of a scan", count, seed, chunks, jobs, _killed_scan)


def write_kills(count: int, seed: int, jobs: int = 2) -> Tally:
    """Kill `count` processes that do nothing but write the cached file of a small dataset."""
    return _drill("kills of a cache write", count, seed, 4, jobs, _killed_write)


def _drill(name: str, count: int, seed: int, chunks: int, jobs: int, kill: Callable[[_Victim, Forks], Kill]) -> Tally:
    tally = Tally(name, f"{count} kills, seed {seed}")
    with tempfile.TemporaryDirectory() as folder:
        jobs = min(jobs, count)

        def work(job: int) -> tuple[float, list[Kill]]:
            place = Path(folder) / f"{job}"
            place.mkdir()
            with Forks(place / "home") as forks:
                victim = _Victim(place, seed + job, chunks, forks)
                return victim.seconds, [kill(victim, forks) for _ in range(job, count, jobs)]

        with ThreadPoolExecutor(jobs) as pool:
            worked = list(pool.map(work, range(jobs)))
    kills = [done for _, each in worked for done in each]
    for done in kills:
        tally.add(done.end, done.bad, done.words if done.bad else "")
    tally.figures["seconds of a whole run"] = round(statistics.median(seconds for seconds, _ in worked), 3)
    tally.figures["left temporary files"] = sum(done.left for done in kills)
    shares = [done.share for done in kills if done.end.startswith("resumed")]
    if shares:
        tally.figures["resumed run over a whole one"] = round(statistics.median(shares), 2)
    return tally.done()


class _Victim:
    """A dataset in a folder of its own, and how long a scan of it takes."""

    def __init__(self, folder: Path, seed: int, chunks: int, forks: Forks) -> None:
        self.folder = folder
        self.rng = np.random.default_rng([seed, chunks])
        self.data = Slow.write(folder / "data.h5", chunks)
        self.seconds = float("inf")
        for _ in range(3):
            whole = forks.run(self.task())
            if whole.counts != self.data.want:
                raise RuntimeError(f"the counts are wrong without any kill: {whole}")
            self.seconds = min(self.seconds, whole.seconds)
            self.clear()

    def task(self, do: Do = "cached", kill_after: float | None = None) -> Task:
        """A task on the dataset, which caches beside it."""
        folder, name = str(self.folder), self.data.path.name
        return Task(do, name, folder, DATASET, save_every=SAVE_EVERY, kill_after=kill_after)

    def kept(self) -> list[Path]:
        """Return every file below the folder but the dataset."""
        return [path for path in self.folder.rglob("*") if path.is_file() and path != self.data.path]

    def clear(self) -> None:
        """Remove all but the dataset."""
        for path in self.kept():
            path.unlink()


def _killed_scan(victim: _Victim, forks: Forks) -> Kill:
    # beyond the end, so that the write after the scan has its share
    delay = float(victim.rng.uniform(0, 1.15)) * victim.seconds
    return _after(victim, forks, forks.run(victim.task("cached", delay)), f"killed after {delay:.4f} s")


def _killed_write(victim: _Victim, forks: Forks) -> Kill:
    delay = float(victim.rng.uniform(0.5, WRITES)) * victim.seconds
    return _after(victim, forks, forks.run(victim.task("rewrite", delay)), f"killed after {delay:.4f} s")


def _after(victim: _Victim, forks: Forks, first: Report, words: str) -> Kill:
    """Look at what is left, take counts from it if there are any, then count as ever."""
    kept = victim.kept()
    partial = any("partial" in path.name for path in kept)
    torn = [path.name for path in kept if path.suffix == ".json" and ".tmp" not in path.name and not _is_json(path)]
    stored = forks.run(victim.task("stored"))
    edited = bool(victim.rng.random() < EDITED)
    if edited:
        victim.data.edit()
        words += ", then edited"
    second = forks.run(victim.task())
    left = [path.name for path in victim.kept() if ".tmp" in path.name]
    unfinished = [path.name for path in victim.kept() if "partial" in path.name and path.name not in left]
    third = forks.run(victim.task("stored"))
    want, before = victim.data.want, victim.data.counts[victim.data.now ^ edited]
    share = second.seconds / victim.seconds
    victim.clear()

    def kill(end: str, bad: bool = False, more: object = "") -> Kill:
        return Kill(end, bad, f"{words}; {more}", len(left), share)

    ignored = [line for report in (stored, second) for line in report.warnings if IGNORED in line]
    if torn or ignored:
        return kill("a torn file", True, torn or ignored)
    if first.end == "counts" and first.counts != before:
        return kill("wrong counts before the kill came", True, first)
    if first.end not in ("killed", "counts"):
        return kill("the killed run ended by itself", True, first)
    if stored.end == "counts" and stored.counts != before:
        return kill("a wrong cached file", True, stored)
    if stored.end not in ("counts", "error"):
        return kill("the cached file could not be looked at", True, stored)
    if second.end != "counts" or second.counts != want:
        return kill("the next run was wrong", True, second)
    if third.end != "counts" or third.counts != want:
        return kill("the next run did not cache", True, third)
    if unfinished:
        return kill("the next run left a partial file", True, unfinished)
    if first.end == "counts":
        return kill("done before the kill, the next run right")
    if edited:
        return kill("killed and edited, the next run right")
    if second.source == "cache":
        return kill("killed after the write, the next run took the cached file")
    return kill(("resumed" if partial else "started over") + ", the next run right")


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except (ValueError, OSError):
        return False
    return True
