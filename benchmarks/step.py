"""What a step of the check costs, against the loop that people write and against PyTorch Lightning.

    python benchmarks/step.py                       the embedded corpus, batch 32
    python benchmarks/step.py arc.h5 --rounds 10    any dataset
    python benchmarks/step.py --require 1.2         exit 1 where ours with Adam is not 1.2 times cheaper than plain

Every row fits the same network from the same parameters to the same batch, in this process, in turns, on one thread;
times are CPU time of the process. `plain` is benchmarks/plain.py, with Adam; `vaefit, adam` is what `vaefit-cli overfit
--recipe adam` runs, accuracy of every class at every step included, and `vaefit` the default recipe, whose optimiser
costs more a step and needs fewer. First plain and ours must agree on the first step's loss and accuracies: where they
do not, no time is printed and the exit code is 1. With the extra `bench`, Lightning's `overfit_batches=1` with the same
Adam is a row, and whole checks are compared in fresh processes, Lightning after as many updates as `--recipe adam`.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import plain
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from vaefit.cache import class_weights, count_dataset
from vaefit.cache.location import Location
from vaefit.vae import RECIPES, BetaVAE, Recipe, overfit
from vaefit.vae.batch import choose_batch
from vaefit.vae.grids.corpus import embedded_corpus
from vaefit.vae.machine import cpu_name
from vaefit.vae.result import Record

PARITY = 1e-4
"""Largest relative difference of the first loss, and of an accuracy."""
ADAM, DEFAULT = "vaefit, adam", "vaefit"


@dataclass(frozen=True)
class Problem:
    """What every row fits."""

    model: BetaVAE
    targets: Tensor  # (B, H, W)
    weight: Tensor  # (C,)

    @classmethod
    def of(cls, data: str) -> Problem:
        """The batch that `vaefit-cli overfit` would choose, and the network as its recipe initialises it."""
        dataset = count_dataset(data)
        batch = choose_batch(Location.parse(data), dataset.counts)
        _, height, width = dataset.shape
        model = BetaVAE(dataset.classes, height, width)
        overfit(model, batch, weights=class_weights(dataset.counts), recipe=Recipe(iterations=0))
        weight = torch.tensor(class_weights(dataset.counts), dtype=torch.float32)
        return cls(model, torch.from_numpy(batch.grids), weight)


def ours(problem: Problem, recipe: Recipe, steps: int) -> tuple[list[Record], list[float]]:
    """The records of `overfit`, and the CPU seconds of each step but the first."""
    model = copy.deepcopy(problem.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    recipe = replace(recipe, init=None, iterations=steps, stop_when="never")
    records: list[Record] = []
    ticks: list[float] = []

    def on_step(record: Record) -> None:
        records.append(record)
        ticks.append(time.process_time())

    overfit(model, problem.targets, weights=problem.weight.double().numpy(), recipe=recipe, on_step=on_step)
    return records, _between(ticks)


def plain_steps(problem: Problem, steps: int) -> list[float]:
    """The CPU seconds of each step of the plain loop but the first."""
    loop = plain.PlainLoop(copy.deepcopy(problem.model), problem.targets, problem.weight)
    ticks = []
    for _ in range(steps):
        loop.step()
        ticks.append(time.process_time())
    return _between(ticks)


def parity(problem: Problem) -> str | None:
    """How the plain loop and ours differ in the first step; None where they agree."""
    loss, pixel, accuracies = plain.PlainLoop(copy.deepcopy(problem.model), problem.targets, problem.weight).step()
    record = ours(problem, Recipe(), 1)[0][0]
    cells = problem.targets[0].numel()  # ours is a sum over cells, divided by the batch
    if abs(record.focal - loss * cells) > PARITY * abs(record.focal):
        return f"loss {record.focal:.7g} against {loss * cells:.7g}"
    found = {c: a for c, a in enumerate(record.accuracies.classes) if a is not None}
    if found.keys() != accuracies.keys() or any(abs(found[c] - accuracies[c]) > PARITY for c in found):
        return f"accuracy per class {found} against {accuracies}"
    if abs(record.accuracies.pixel - pixel) > PARITY:
        return f"pixel accuracy {record.accuracies.pixel} against {pixel}"
    return None


def rows(with_lightning: bool) -> dict[str, Callable[[Problem, int], list[float]]]:
    """What is timed: name to CPU seconds of the steps."""
    found: dict[str, Callable[[Problem, int], list[float]]] = {
        "plain": plain_steps,
        ADAM: lambda problem, steps: ours(problem, RECIPES["adam"], steps)[1],
        DEFAULT: lambda problem, steps: ours(problem, RECIPES["default"], steps)[1],
    }
    if with_lightning:
        import lightning_peer

        found["lightning"] = lambda problem, steps: lightning_peer.fit(
            copy.deepcopy(problem.model), problem.targets, problem.weight, RECIPES["adam"], steps
        )
    return found


def whole_check(data: str, rounds: int) -> dict[str, Any]:
    """CPU seconds of fresh processes, in turns: our whole checks, and Lightning after as many updates as with Adam."""
    seconds: dict[str, list[float]] = {DEFAULT: [], ADAM: [], "lightning": []}
    updates: dict[str, int] = {}
    for _ in range(rounds):
        for name, recipe in ((DEFAULT, "default"), (ADAM, "adam")):
            with tempfile.TemporaryDirectory() as folder:
                options = ["--recipe", recipe, "--threads", "1", "--json", "--out", folder]
                spent, out = _cpu_of([sys.executable, "-m", "vaefit.cli", "overfit", data, *options])
            seconds[name].append(spent)
            updates[name] = json.loads(out)["iterations"]
        updates["lightning"] = updates[ADAM]
        peer = Path(__file__).with_name("lightning_peer.py")
        seconds["lightning"].append(_cpu_of([sys.executable, str(peer), data, "--steps", str(updates[ADAM])])[0])
    return {
        name: {"updates": updates[name], "cpu_seconds": statistics.median(values)} for name, values in seconds.items()
    }


def _cpu_of(command: list[str]) -> tuple[float, str]:
    """CPU seconds of a process, user and system, and what it printed."""
    before = os.times()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    after = os.times()
    spent = after.children_user - before.children_user + after.children_system - before.children_system
    return spent, done.stdout


def _between(ticks: list[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(ticks)]


def _summary(seconds: list[float], plain_median: float) -> dict[str, float]:
    low, median, high = statistics.quantiles(seconds, n=4)
    milli = {"median_ms": median, "low_ms": low, "high_ms": high}
    return {**{name: 1e3 * value for name, value in milli.items()}, "plain_over_this": plain_median / median}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="file.h5 or file.h5:/dataset; the embedded corpus where left out")
    parser.add_argument("--rounds", type=int, default=8, help="turns of every row")
    parser.add_argument("--steps", type=int, default=40, help="steps of a turn, at least 3")
    parser.add_argument("--no-peers", action="store_true", help="leave Lightning out")
    parser.add_argument(
        "--require", type=float, default=0.0, help="exit 1 unless plain costs this many times ours with Adam"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    data = arguments.data or str(embedded_corpus())
    problem = Problem.of(data)
    wrong = parity(problem)
    if wrong is not None:
        print(f"parity is red, so nothing is timed: {wrong}", file=sys.stderr)
        return 1
    with_lightning = not arguments.no_peers and all(importlib.util.find_spec(n) for n in ("lightning", "torchmetrics"))
    if not with_lightning and not arguments.no_peers:
        print("lightning and torchmetrics are left out: pip install 'vaefit[bench]'", file=sys.stderr)
    timed: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        for name, steps in rows(with_lightning).items():
            timed.setdefault(name, []).extend(steps(problem, max(arguments.steps, 3)))
    base = statistics.median(timed["plain"])
    found: dict[str, Any] = {
        "machine": {"cpu": cpu_name(), "threads": 1, "system": platform.system()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "batch": list(problem.targets.shape),
        "step": {name: _summary(seconds, base) for name, seconds in timed.items()},
        "check": whole_check(data, max(3, arguments.rounds // 3)) if with_lightning else None,
    }
    if arguments.json:
        print(json.dumps(found))
    else:
        _print(found)
    return 0 if found["step"][ADAM]["plain_over_this"] >= arguments.require else 1


def _print(found: dict[str, Any]) -> None:
    console = Console(width=100)
    table = Table(title=f"a step, CPU time, batch {found['batch']}: median (quartiles)", title_justify="left")
    for column in ("loop", "ms", "times cheaper than plain"):
        table.add_column(column, justify="right")
    for name, row in found["step"].items():
        spread = f"{row['median_ms']:.2f} ({row['low_ms']:.2f} to {row['high_ms']:.2f})"
        table.add_row(name, spread, f"{row['plain_over_this']:.2f}")
    console.print(table)
    if found["check"] is None:
        return
    checks = Table(title="a whole check in a fresh process; Lightning gives no verdict and no pictures")
    for column in ("loop", "updates", "CPU s"):
        checks.add_column(column, justify="right")
    for name, row in found["check"].items():
        checks.add_row(name, str(row["updates"]), f"{row['cpu_seconds']:.2f}")
    console.print(checks)


if __name__ == "__main__":
    sys.exit(main())
