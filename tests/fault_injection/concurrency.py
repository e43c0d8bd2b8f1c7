"""Many processes at once on one dataset that nobody has counted: all are right, and one cached file is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.fault_injection.dataset import DATASET, Slow
from tests.fault_injection.tally import Tally

LIMIT_S = 120.0
"""Of one round, from the start signal to the last exit."""
_WAITING = """
import sys
from vaefit.cli import run
import h5py, vaefit.cache.dataset_counts, vaefit.cli.app
print("ready", flush=True)
sys.stdin.readline()
sys.exit(run(sys.argv[1:]))
"""
"""The command line, which imports everything, says so, and waits for a line before it starts."""


def crowd(rounds: int, seed: int, processes: int = 16, chunks: int = 4_000) -> Tally:
    """Run the rounds; in every second one a process gets SIGKILL after a moment."""
    tally = Tally("crowd", f"{rounds} rounds of {processes} processes, one killed in every second, seed {seed}")
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        data = Slow.write(Path(folder) / "data.h5", chunks)
        for number in range(rounds):
            killed = int(rng.integers(processes)) if number % 2 else None
            _round(tally, data, Path(folder) / f"home{number}", processes, killed, float(rng.uniform(0, 2)))
            data.edit()  # whatever the last round left is true no more
            if number % 3 == 2:
                for path in _kept(data.path):
                    path.unlink()
    return tally.done()


def _round(tally: Tally, data: Slow, home: Path, processes: int, killed: int | None, after: float) -> None:
    command = [sys.executable, "-c", _WAITING, "weights", f"{data.path}:/{DATASET}", "--json", "--quiet"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(home)}
    crowd = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(processes)
    ]
    for process in crowd:
        assert process.stdout is not None
        process.stdout.readline()
    start = time.monotonic()
    for process in crowd:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    if killed is not None:
        time.sleep(after)
        crowd[killed].kill()
    for number, process in enumerate(crowd):
        try:
            out, err = process.communicate(timeout=max(1.0, LIMIT_S - time.monotonic() + start))
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            tally.add("out of time", True, f"process {number}: {err[-200:]}")
            continue
        if number == killed and process.returncode != 0:
            tally.add("killed")
        else:
            _look(tally, data, process.returncode, out, err)
    name = "seconds of a round, at most"
    tally.figures[name] = round(max(tally.figures.get(name, 0.0), time.monotonic() - start), 1)
    kept = [path.name for path in _kept(data.path)]
    kept += [str(path) for path in home.rglob("*") if path.is_file()]
    left = [name for name in kept if ".tmp" in name]
    if killed is not None:
        tally.figures["left by the killed"] = tally.figures.get("left by the killed", 0) + len(left)
        kept = [name for name in kept if name not in left and "partial" not in name]
    good = len(kept) == 1
    tally.add("a round that left one cached file" if good else "a round that left other files", not good,
              "" if good else f"{kept}, killed {killed} after {after:.2f} s")  # fmt: skip


def _look(tally: Tally, data: Slow, code: int, out: str, err: str) -> None:
    if code != 0 or "Traceback" in err:
        tally.add(f"exit {code}", True, err[-300:])
        return
    body = json.loads(out)
    counts = {label: count for label, count in enumerate(body["counts"]) if count}
    if counts != data.want:
        tally.add("wrong counts", True, f"{counts} from the {body['source']}, not {data.want}")
    else:
        tally.add(f"right counts, from the {body['source']}")


def _kept(data: Path) -> list[Path]:
    return [path for path in data.parent.iterdir() if path.is_file() and path != data]
