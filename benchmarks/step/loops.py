"""Loops whose steps are timed, on one problem."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from vaefit.cache import class_weights, count_dataset
from vaefit.cache.location import Location
from vaefit.vae import RECIPES, BetaVAE, Recipe, overfit
from vaefit.vae.data.batch import choose_batch
from vaefit.vae.fitting.cuda_graph import WINDOW
from vaefit.vae.fitting.result import Record

from . import plain_loop

PARITY = 1e-4
"""Largest relative difference of the first loss, and of an accuracy."""
PLAIN, ADAM, DEFAULT, LIGHTNING = "plain", "vaefit, adam", "vaefit", "lightning"


@dataclass(frozen=True)
class Problem:
    """Network, batch and class weights that every loop fits."""

    model: BetaVAE
    targets: Tensor  # (B, H, W)
    weight: Tensor  # (C,)

    @classmethod
    def from_data(cls, data: Path | str) -> Problem:
        """Return the batch that `vaefit-cli overfit` chooses, and the network as its recipe initialises it."""
        dataset = count_dataset(data)
        batch = choose_batch(Location.parse(data), dataset.counts)
        _, height, width = dataset.shape
        model = BetaVAE(dataset.classes, height, width)
        overfit(model, batch, weights=class_weights(dataset.counts), recipe=Recipe(iterations=0))
        weight = torch.tensor(class_weights(dataset.counts), dtype=torch.float32)
        return cls(model, torch.from_numpy(batch.grids), weight)

    def on(self, device: torch.device) -> Problem:
        """Return the problem with its tensors on a device."""
        return Problem(copy.deepcopy(self.model).to(device), self.targets.to(device), self.weight.to(device))


Loop = Callable[[Problem, int], list[float]]
"""Make a number of steps; return the seconds of each but the first: CPU time, on a GPU wall time."""


def loops(with_lightning: bool) -> dict[str, Loop]:
    """Return the loops of the CPU by name: the plain loop, ours, and Lightning if requested."""
    found: dict[str, Loop] = {
        PLAIN: plain_steps,
        ADAM: lambda problem, steps: ours(problem, RECIPES["adam"], steps)[1],
        DEFAULT: lambda problem, steps: ours(problem, RECIPES["default"], steps)[1],
    }
    if with_lightning:
        found[LIGHTNING] = lightning_steps
    return found


def device_loops() -> dict[str, Loop]:
    """Return the loops of a GPU: the plain loop, and ours step by step, compiled, and as a CUDA graph."""
    found: dict[str, Loop] = {PLAIN: partial(plain_steps, clock=time.perf_counter)}
    for name, key in ((ADAM, "adam"), (DEFAULT, "default")):
        for how, graph, compiled in (("eager", False, False), ("compiled", False, True), ("graph", True, False)):
            found[f"{name}, {how}"] = partial(device_steps, recipe=RECIPES[key], graph=graph, compiled=compiled)
    return found


def device_steps(problem: Problem, steps: int, recipe: Recipe, graph: bool, compiled: bool) -> list[float]:
    """Return the seconds of a step for each window of steps, without the windows of compiling and capturing."""
    model = copy.deepcopy(problem.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compiled:
        model.compile()  # in place, so that it stays a BetaVAE
    recipe = replace(recipe, init=None, iterations=WINDOW * (2 + -(-steps // WINDOW)), stop_when="never")
    ticks: list[float] = []
    overfit(
        model,
        problem.targets,
        weights=problem.weight.double().cpu().numpy(),
        recipe=recipe,
        graph=graph,
        on_step=lambda _: ticks.append(time.perf_counter()),
    )
    return [seconds / WINDOW for seconds in _between(ticks[WINDOW - 1 :: WINDOW])][1:]


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


def plain_steps(problem: Problem, steps: int, clock: Callable[[], float] = time.process_time) -> list[float]:
    """The plain loop, with Adam."""
    loop = plain_loop.PlainLoop(copy.deepcopy(problem.model), problem.targets, problem.weight)
    ticks = []
    for _ in range(steps):
        loop.step()
        ticks.append(clock())
    return _between(ticks)


def lightning_steps(problem: Problem, steps: int) -> list[float]:
    """Run Lightning's `overfit_batches=1`, with the same Adam."""
    from . import lightning_peer

    return lightning_peer.fit(copy.deepcopy(problem.model), problem.targets, problem.weight, RECIPES["adam"], steps)


def parity(problem: Problem) -> str | None:
    """Return how the plain loop and ours differ in the first step; None if they agree."""
    loss, pixel, accuracies = plain_loop.PlainLoop(copy.deepcopy(problem.model), problem.targets, problem.weight).step()
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


def _between(ticks: list[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(ticks)]
