"""Time of a step of the check, against a plain PyTorch loop and PyTorch Lightning.

Every loop fits the same network from the same parameters to the same batch, in this process, in turns, on one thread;
times are CPU times of the process. `plain` is plain_loop.py, with Adam; `vaefit, adam` is the loop of `vaefit-cli
overfit --recipe adam`, with the accuracy of every class at every step, and `vaefit` that of the default recipe, whose
optimizer costs more per step and needs fewer steps. With the extra `bench`, Lightning's `overfit_batches=1` with the
same Adam is a loop, and whole checks are compared in fresh processes; Lightning makes as many updates as `--recipe
adam`.

On a GPU our loop runs step by step, with the network compiled by torch.compile, and as a CUDA graph; times are wall
times, and the peers are left out.
"""

from __future__ import annotations

import importlib.util
import logging
import platform
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from vaefit.cache.errors import require_range
from vaefit.vae.environment.device import choose_device, known_device
from vaefit.vae.environment.hardware import cpu_name

from ..threads import cpu_threads
from .loops import ADAM, PLAIN, Problem, device_loops, loops, parity
from .whole_check import CheckCost, whole_checks

_log = logging.getLogger("vaefit")

LEAST_STEPS = 3
MOST = 1 << 20


@dataclass(frozen=True)
class StepSettings:
    """Settings of `vaefit-cli bench step`; SettingError for a value that is wrong by itself."""

    rounds: int = 8
    """Rounds of every loop."""
    steps: int = 40
    """Steps of a round; fewer than 3 are taken as 3."""
    with_peers: bool = True
    device: str = "cpu"

    def __post_init__(self) -> None:
        require_range("--rounds", self.rounds, 1, MOST)
        require_range("--steps", self.steps, 1, MOST)
        known_device(self.device)


@dataclass(frozen=True)
class StepCost:
    """Median and quartiles of the time of a step."""

    median_ms: float
    low_ms: float
    high_ms: float
    plain_over_this: float


@dataclass(frozen=True)
class StepBench:
    """Result of `vaefit-cli bench step`."""

    batch: tuple[int, ...]
    device: str
    """Name of the device."""
    clock: str
    """`CPU time` or `wall time`."""
    loops: dict[str, StepCost]
    """Cost of each loop; empty if parity is red."""
    checks: dict[str, CheckCost] | None = None
    """None if the peers are left out."""
    wrong: str | None = None
    """Difference between the first steps of the plain loop and ours; None if they agree."""

    @property
    def times_cheaper(self) -> float:
        """Cost of the plain loop over that of ours with Adam."""
        return next(cost.plain_over_this for name, cost in self.loops.items() if name.startswith(ADAM))

    def json(self) -> dict[str, Any]:
        """Return the result and the machine as JSON."""
        return {
            "machine": {"cpu": cpu_name(), "threads": 1, "system": platform.system()},
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "device": self.device,
            "clock": self.clock,
            "parity": self.wrong is None,
            "wrong": self.wrong,
            "batch": list(self.batch),
            "step": {name: asdict(cost) for name, cost in self.loops.items()},
            "check": None if self.checks is None else {name: asdict(cost) for name, cost in self.checks.items()},
        }


def bench_step(
    data: Path | str, settings: StepSettings, on_part: Callable[[int, int, str], None] | None = None
) -> StepBench:
    """Measure every loop; none if the plain loop and ours differ in the first step.

    `on_part` is called before each round of a loop with the number of rounds done, that of all, and the loop's name.
    """
    device = choose_device(settings.device)
    on_gpu = device.type == "cuda"
    where = torch.cuda.get_device_name(device) if on_gpu else cpu_name()
    clock = "wall time" if on_gpu else "CPU time"
    with cpu_threads(1):
        problem = Problem.from_data(data)
        batch = tuple(problem.targets.shape)
        wrong = parity(problem)
        if wrong is not None:
            return StepBench(batch, where, clock, {}, wrong=wrong)
        peers = settings.with_peers and not on_gpu and _peers_installed()
        timed_loops = device_loops() if on_gpu else loops(peers)
        problem = problem.on(device)
        timed: dict[str, list[float]] = {name: [] for name in timed_loops}
        for number in range(settings.rounds):
            for place, (name, steps) in enumerate(timed_loops.items()):
                if on_part is not None:
                    on_part(number * len(timed_loops) + place, settings.rounds * len(timed_loops), name)
                timed[name] += steps(problem, max(settings.steps, LEAST_STEPS))
    base = statistics.median(timed[PLAIN])
    costs = {name: _cost(seconds, base) for name, seconds in timed.items()}
    checks = whole_checks(data, max(3, settings.rounds // 3)) if peers else None
    return StepBench(batch, where, clock, costs, checks)


def _peers_installed() -> bool:
    found = all(importlib.util.find_spec(name) for name in ("lightning", "torchmetrics"))
    if not found:
        _log.warning("lightning and torchmetrics are left out: pip install 'vaefit[bench]'")
    return found


def _cost(seconds: list[float], plain_median: float) -> StepCost:
    low, median, high = statistics.quantiles(seconds, n=4)
    return StepCost(1e3 * median, 1e3 * low, 1e3 * high, plain_median / median)
