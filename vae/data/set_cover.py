"""Showing every class with few grids: which to bring in, and which to give up for them."""

from __future__ import annotations

import functools
import operator

import numpy as np
from numpy.typing import NDArray

Classes = NDArray[np.bool_]

EXACT_CLASSES = 12
"""Up to this many missing classes the smallest cover is found exactly; above it greedily (set cover is NP-hard)."""
MOST_LOOKS = 200_000
"""How many grids the search for the fewest swaps looks at before it gives up; a third of a second or so."""


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


def fewest_swaps(shown: NDArray[np.bool_], candidates: list[Classes]) -> list[tuple[int, int]] | None:
    """The fewest swaps after which the batch shows every class, as (place, index of the candidate) pairs.

    `shown` is (B, C) of the classes each grid of the batch holds, a candidate (C,) of those it holds. Where the search
    gives up, as it may beyond some 20 classes, a greedy cover. None where that takes more than B grids.
    """
    size, classes = shown.shape
    bits = 1 << np.arange(classes, dtype=object)
    masks = [int(bits[row].sum()) for row in (*shown, *candidates)]
    # the classes that fewest grids show leave least to try, so they are covered first; grids of the batch cost nothing
    holders = [[i for i, mask in enumerate(masks) if mask >> c & 1] for c in range(classes)]
    order = sorted(range(classes), key=lambda c: len(holders[c]))
    most = max(mask.bit_count() for mask in masks)
    hopeless: set[tuple[int, int, int]] = set()
    looks = 0

    def search(missing: int, places: int, newcomers: int) -> list[int] | None:
        """At most `places` grids, at most `newcomers` of them candidates, that show the missing classes."""
        nonlocal looks
        if not missing:
            return []
        state = (missing, places, newcomers)
        if missing.bit_count() > most * places or state in hopeless:
            return None
        for i in holders[next(c for c in order if missing >> c & 1)]:
            looks += 1
            if looks > MOST_LOOKS or (i >= size and not newcomers):
                break
            rest = search(missing & ~masks[i], places - 1, newcomers - (i >= size))
            if rest is not None:
                return [i, *rest]
        hopeless.add(state)
        return None

    attempts = (search((1 << classes) - 1, size, newcomers) for newcomers in range(size + 1))
    cover = next((found for found in attempts if found is not None), None)
    if cover is None:
        cover = fewest_covering([*shown, *candidates])
    if len(cover) > size:
        return None
    incoming = [i - size for i in cover if i >= size]
    free = [place for place in range(size) if place not in cover]
    return list(zip(free, incoming, strict=False))


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
