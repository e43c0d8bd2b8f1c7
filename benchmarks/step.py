"""What a step of the check costs, against the loop that people write and against PyTorch Lightning.

    python benchmarks/step.py                       the embedded corpus, batch 32
    python benchmarks/step.py arc.h5 --rounds 10    any dataset
    python benchmarks/step.py --require 1.2         exit 1 where ours is not 1.2 times cheaper than the plain loop

Every row fits the same network from the same parameters to the same batch, in this process, in turns, on one thread;
times are CPU time of the process. `plain` is benchmarks/plain.py; `vaefit` is what `vaefit-cli overfit` runs, accuracy
of every class at every step included. First both must agree on the first step's loss and accuracies: where they do not,
no time is printed and the exit code is 1. With the extra `bench`, Lightning's `overfit_batches=1` is a row, and the
whole check is compared with it in fresh processes, both after as many updates as the check needs.
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
from vaefit.vae import BetaVAE, Recipe, overfit
from vaefit.vae.batch import choose_batch
from vaefit.vae.doctor import cpu_name
from vaefit.vae.grids.corpus import embedded_corpus
from vaefit.vae.result import Record

PARITY = 1e-4
"""Largest relative difference of the first loss, and of an accuracy."""


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
        "vaefit": lambda problem, steps: ours(problem, Recipe(), steps)[1],
    }
    if with_lightning:
        import lightning_peer

        found["lightning"] = lambda problem, steps: lightning_peer.fit(
            copy.deepcopy(problem.model), problem.targets, problem.weight, Recipe(), steps
        )
    return found


def whole_check(data: str, rounds: int) -> dict[str, Any]:
    """CPU seconds of fresh processes, in turns: our whole check, and Lightning after as many updates."""
    seconds: dict[str, list[float]] = {"vaefit": [], "lightning": []}
    iterations = 0
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "vaefit.cli", "overfit", data, "--json", "--out", folder]
            spent, out = _cpu_of(command)
            seconds["vaefit"].append(spent)
            iterations = json.loads(out)["iterations"]
        peer = Path(__file__).with_name("lightning_peer.py")
        seconds["lightning"].append(_cpu_of([sys.executable, str(peer), data, "--steps", str(iterations)])[0])
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {"updates": iterations, "cpu_seconds": medians, "ratio": medians["lightning"] / medians["vaefit"]}


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


def _summary(seconds: list[float], base: float) -> dict[str, float]:
    low, median, high = statistics.quantiles(seconds, n=4)
    milli = {"median_ms": median, "low_ms": low, "high_ms": high}
    return {**{name: 1e3 * value for name, value in milli.items()}, "ratio": median / base}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="file.h5 or file.h5:/dataset; the embedded corpus where left out")
    parser.add_argument("--rounds", type=int, default=8, help="turns of every row")
    parser.add_argument("--steps", type=int, default=40, help="steps of a turn, at least 3")
    parser.add_argument("--no-peers", action="store_true", help="leave Lightning out")
    parser.add_argument("--require", type=float, default=0.0, help="exit 1 unless plain costs this many times ours")
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
    base = statistics.median(timed["vaefit"])
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
    return 0 if found["step"]["plain"]["ratio"] >= arguments.require else 1


def _print(found: dict[str, Any]) -> None:
    table = Table(title=f"a step, CPU time, batch {found['batch']}: median (quartiles)")
    for column in ("loop", "ms", "times vaefit"):
        table.add_column(column, justify="right")
    for name, row in found["step"].items():
        spread = f"{row['median_ms']:.2f} ({row['low_ms']:.2f} to {row['high_ms']:.2f})"
        table.add_row(name, spread, f"{row['ratio']:.2f}")
    console = Console(width=100)
    console.print(table)
    check = found["check"]
    if check is not None:
        ours_s, theirs = check["cpu_seconds"]["vaefit"], check["cpu_seconds"]["lightning"]
        console.print(
            f"the whole check, {check['updates']} updates, fresh process, CPU: vaefit {ours_s:.2f} s, "
            f"lightning {theirs:.2f} s ({check['ratio']:.2f} times; it draws no pictures and gives no verdict)"
        )


if __name__ == "__main__":
    sys.exit(main())
