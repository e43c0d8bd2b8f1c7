"""Time that CollapseMonitor adds to a training step.

    python -m vaefit.benchmarks.monitor --out benchmarks/results/monitor-cpu.json

One BetaVAE is trained on batches of the synthetic corpus, on one thread. Blocks of `--every` steps are timed in turns
without the monitor and with it; the monitor evaluates counts, losses and the batch once a block. The monitor's own
calls are timed apart, on the same counts and logits. Times are CPU times of the process. The exit code is 1 if the
monitor's calls cost more than 3 % of a step.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from vaefit.kernels import focal_loss_with_counts
from vaefit.vae import BetaVAE, CollapseMonitor
from vaefit.vae.data.synthetic import SyntheticSpec, synthesise
from vaefit.vae.environment.hardware import cpu_name

from .threads import cpu_threads

GOAL = 0.03
CLASSES, SIDE = 10, 16
WARM_UP = 3
"""Steps before the first timed one."""


@dataclass(frozen=True)
class MonitorCost:
    """Medians and quartiles of CPU time, in milliseconds a step."""

    batch: int
    every: int
    step: tuple[float, float, float]
    """Step without the monitor: lower quartile, median, upper quartile."""
    watched: tuple[float, float, float]
    """Step with the monitor."""
    monitor: tuple[float, float, float]
    """Calls of the monitor alone; one in `every` evaluates the batch."""

    @property
    def share(self) -> float:
        """Time of the monitor's calls over that of a step without it."""
        return self.monitor[1] / self.step[1]

    def json(self) -> dict[str, Any]:
        """Return the result and the machine as JSON."""
        return {
            "machine": {"cpu": cpu_name(), "threads": 1, "system": platform.system()},
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "clock": "CPU time",
            "shape": [self.batch, CLASSES, SIDE, SIDE],
            **asdict(self),
            "share": self.share,
        }


class Loop:
    """Plain training loop of one network: focal loss with counts, Adam."""

    def __init__(self, batch: int) -> None:
        cells = synthesise(SyntheticSpec(grids=4096, height=SIDE, width=SIDE, classes=CLASSES))
        self._grids, self._batch = torch.from_numpy(cells.astype(np.int64)), batch
        torch.manual_seed(0)
        self._model = BetaVAE(CLASSES, SIDE, SIDE)
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=1e-3)

    def step(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Make one update; return (counts, logits, targets, loss)."""
        targets = self._grids[torch.randint(0, len(self._grids), (self._batch,))]
        logits, _, _ = self._model(targets)
        loss, counts = focal_loss_with_counts(logits.contiguous(), targets, reduction="batch")
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return counts, logits, targets, loss


def measure(batch: int, every: int, rounds: int) -> MonitorCost:
    """Time `rounds` blocks of each kind, in turns."""
    loop = Loop(batch)
    watching, alone = (CollapseMonitor(CLASSES, every=every, warmup=0, on_warning=lambda _: None) for _ in range(2))
    for _ in range(WARM_UP):
        kept = loop.step()
    plain, watched, calls = [], [], []
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(every):
            kept = loop.step()
        plain.append(time.process_time() - start)

        start = time.process_time()
        for _ in range(every):
            counts, logits, targets, loss = loop.step()
            watching.update(counts, logits, targets, loss=loss)
        watched.append(time.process_time() - start)

        counts, logits, targets, loss = kept
        start = time.process_time()
        for _ in range(every):
            alone.update(counts, logits, targets, loss=loss)
        calls.append(time.process_time() - start)
    return MonitorCost(batch, every, *(_quartiles(seconds, every) for seconds in (plain, watched, calls)))


def _quartiles(seconds: list[float], steps: int) -> tuple[float, float, float]:
    low, median, high = (1e3 * value / steps for value in statistics.quantiles(seconds, n=4))
    return low, median, high


def main() -> int:
    """Measure, print the table, and return 1 if the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=15, help="blocks of each kind, at least 2")
    parser.add_argument("--out", type=Path, help="a JSON file")
    arguments = parser.parse_args()

    with cpu_threads(1):
        cost = measure(arguments.batch_size, arguments.every, max(2, arguments.rounds))
    table = Table(title=f"batch {cost.batch}, {SIDE} x {SIDE}, {CLASSES} classes, evaluated every {cost.every} steps")
    for column in ("", "ms a step", "quartiles", "share of a step"):
        table.add_column(column, justify="right" if column else "left")
    rows = {"step": cost.step, "step with the monitor": cost.watched, "the monitor's calls": cost.monitor}
    for name, (low, median, high) in rows.items():
        table.add_row(name, f"{median:.3f}", f"{low:.3f} to {high:.3f}", f"{100 * median / cost.step[1]:.2f} %")
    Console(width=110).print(table)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(cost.json(), indent=2) + "\n", encoding="utf-8")
    return 0 if cost.share <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
