"""Showing every class with few grids: which to bring in, and which to give up for them."""

from __future__ import annotations

import functools
import operator

import numpy as np
from numpy.typing import NDArray

Classes = NDArray[np.bool_]

EXACT_CLASSES = 12
"""Up to this many missing classes the smallest cover is found exactly; above it greedily (set cover is NP-hard)."""


def fewest_covering(candidates: list[Classes]) -> list[int]:
    """Indices of the fewest candidates, each (M,) of the missing classes it holds, that hold all that any of them does.

    Of several that hold the same the first is meant. Exact for M up to 12, by dynamic programming over sets of
    classes; greedy above, within a factor of ln M + 1.
    """
    if not candidates:
        return []
    table = np.stack(candidates)
    return _exact(table) if table.shape[1] <= EXACT_CLASSES else _greedy(table)


def swap_in(shown: NDArray[np.bool_], incoming: list[Classes]) -> list[tuple[int, int]]:
    """Give each incoming grid a place among `shown`, (B, C) of the classes each grid of the batch holds.

    Returns (place, index of the incoming grid) pairs. The grid that goes is the one whose going hides fewest classes; a
    swap that would not show more classes than it hides is left out. `shown` is updated in place.
    """
    swaps: list[tuple[int, int]] = []
    free = np.ones(shown.shape[0], dtype=bool)
    for number, classes in enumerate(incoming):
        if not free.any():
            break
        times = shown.sum(axis=0)
        # for each place: the classes that only it shows, and that the newcomer does not show either
        hidden = (shown & (times == 1) & ~classes).sum(axis=1)
        place = int(np.where(free, hidden, hidden.max() + 1).argmin())
        if (classes & (times == 0)).sum() <= hidden[place]:
            continue
        shown[place] = classes
        free[place] = False
        swaps.append((place, number))
    return swaps


def _exact(table: NDArray[np.bool_]) -> list[int]:
    masks: dict[int, int] = {}
    for index, mask in enumerate((table @ (1 << np.arange(table.shape[1]))).tolist()):
        masks.setdefault(mask, index)
    goal = functools.reduce(operator.or_, masks)
    # breadth first over the sets of classes covered so far
    reached: dict[int, list[int]] = {0: []}
    frontier = [0]
    while goal not in reached:
        following = []
        for covered in frontier:
            for mask, index in masks.items():
                if (union := covered | mask) not in reached:
                    reached[union] = [*reached[covered], index]
                    following.append(union)
        frontier = following
    return reached[goal]


def _greedy(table: NDArray[np.bool_]) -> list[int]:
    left = table.any(axis=0)
    chosen = []
    while left.any():
        best = int((table & left).sum(axis=1).argmax())
        chosen.append(best)
        left &= ~table[best]
    return chosen
