"""Goals of the kernels on one CPU thread in float32, and the measured values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .inputs import Op, Shape
from .plan import QUICK_SHAPES
from .row import Row


@dataclass(frozen=True)
class Goal:
    """Goal of one measurement: a least ratio to a peer, or, without a peer, the most extra memory."""

    backend: str
    shape: Shape
    op: Op
    peer: str | None
    bound: float


@dataclass(frozen=True)
class Judgement:
    """Goal and measured value; None where the peer's answer was wrong, or ours."""

    goal: Goal
    measured: float | None

    @property
    def holds(self) -> bool:
        """True where the goal is reached."""
        if self.measured is None:
            return False
        return self.measured <= self.goal.bound if self.goal.peer is None else self.measured >= self.goal.bound

    @property
    def wanted(self) -> str:
        """Return the bound in words."""
        bound, peer = self.goal.bound, self.goal.peer
        return f"extra at most {bound:.1f}" if peer is None else f"x {peer} at least {bound:.1f}"


def _goals() -> list[Goal]:
    """Return the goals of the two backends of a CPU, shape by shape."""
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
    """Judge every goal of these rows; a GPU, other dtypes and more threads have none."""
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
