"""CPU time of a whole check in a fresh process, against Lightning."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vaefit.vae.errors import RunError

from .loops import ADAM, DEFAULT, LIGHTNING


@dataclass(frozen=True)
class CheckCost:
    """Updates of a check, and CPU seconds of its process from the start."""

    updates: int
    cpu_seconds: float


def whole_checks(data: Path | str, rounds: int) -> dict[str, CheckCost]:
    """Run our checks and Lightning in fresh processes, in turns; Lightning makes as many updates as ours with Adam."""
    seconds: dict[str, list[float]] = {DEFAULT: [], ADAM: [], LIGHTNING: []}
    updates: dict[str, int] = {}
    for _ in range(rounds):
        for name, recipe in ((DEFAULT, "default"), (ADAM, "adam")):
            with tempfile.TemporaryDirectory() as folder:
                options = ["--recipe", recipe, "--threads", "1", "--json", "--out", folder]
                spent, out = _cpu_of(["vaefit.cli", "overfit", str(data), *options])
            seconds[name].append(spent)
            updates[name] = json.loads(out)["iterations"]
        updates[LIGHTNING] = updates[ADAM]
        peer = ["vaefit.benchmarks.step.lightning_peer", str(data), "--steps", str(updates[ADAM])]
        seconds[LIGHTNING].append(_cpu_of(peer)[0])
    return {name: CheckCost(updates[name], statistics.median(values)) for name, values in seconds.items()}


def _cpu_of(words: list[str]) -> tuple[float, str]:
    """Run a module as a program; return its CPU seconds, user and system, and its stdout."""
    before = os.times()
    command = [sys.executable, "-m", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    if done.returncode not in (0, 1):
        raise RunError("a measured process failed", " ".join(command), f"exit code {done.returncode}")
    after = os.times()
    spent = after.children_user - before.children_user + after.children_system - before.children_system
    return spent, done.stdout
