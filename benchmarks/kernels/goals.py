"""What the kernels are to reach on one CPU thread, in float32, held against what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .inputs import Op, Shape
from .plan import QUICK_SHAPES
from .row import Row


@dataclass(frozen=True)
class Goal:
    """One number to reach: a ratio to a peer at least, or, without a peer, extra memory at most."""

    backend: str
    shape: Shape
    op: Op
    peer: str | None
    bound: float


@dataclass(frozen=True)
class Judgement:
    """A goal and what was measured; None where the peer's answer was wrong, or ours."""

    goal: Goal
    measured: float | None

    @property
    def holds(self) -> bool:
        """The goal is reached."""
        if self.measured is None:
            return False
        return self.measured <= self.goal.bound if self.goal.peer is None else self.measured >= self.goal.bound

    @property
    def wanted(self) -> str:
        """The bound in words."""
        bound, peer = self.goal.bound, self.goal.peer
        return f"extra at most {bound:.1f}" if peer is None else f"x {peer} at least {bound:.1f}"


def _goals() -> list[Goal]:
    """Of the two backends that a CPU has, shape by shape."""
    found = []
    for backend, slopes, both, memory in (("eager", (2.0, 2.2, 2.2), 2.8, 1.5), ("compiled", (3.0,) * 3, 5.0, 1.2)):
        for shape, slope in zip(QUICK_SHAPES, slopes, strict=True):
            found += [
                Goal(backend, shape, "loss+gradient+counts", "naive", both),
                Goal(backend, shape, "loss+gradient", "naive", slope),
                Goal(backend, shape, "counts", "torchmetrics", 4.0),
                Goal(backend, shape, "loss+gradient+counts", None, memory),
            ]
    return found


GOALS = tuple(_goals())


def judge_goals(rows: Sequence[Row]) -> list[Judgement]:
    """Every goal that these rows are about; none for a GPU, other dtypes or more threads."""
    found = []
    for row in rows:
        if (row.place.device, row.place.threads, row.dtype) != ("cpu", 1, "float32"):
            continue
        for goal in GOALS:
            if goal.peer is not None and goal.peer not in row.peers:
                continue  # it is not installed
            if (goal.backend, goal.shape, goal.op) == (row.backend, row.shape, row.op):
                found.append(Judgement(goal, row.extra_memory if goal.peer is None else row.ratio.get(goal.peer)))
    return found
