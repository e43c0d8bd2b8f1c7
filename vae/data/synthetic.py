"""Synthetic corpus: objects on a background, with class statistics like those of ARC grids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vaefit.cache.errors import require_range
from vaefit.cache.scan.histogram import MAX_CLASSES

from ..recipe import MAX_SEED

MAX_CELLS = 15
MAX_OBJECTS = 4
MAX_EXTENT = 8
"""Largest height and width of an object, so that each fits into the smallest grid."""
_LIBRARY = 8192
_TRIES = 40

# shares of blobs, rectangles, lines and patterns among the objects
_KINDS = (0.4, 0.2, 0.2, 0.2)
_PATTERNS = (
    "#.#/.#./#.#",
    ".#./###/.#.",
    "###/#.#/###",
    "#.#/#.#/###",
    "##./.##",
    "###/.#.",
    "#../#../###",
    "#.#/.#.",
    ".#./#.#/.#.",
    "##/#.",
)


@dataclass(frozen=True)
class SyntheticSpec:
    """Settings of a synthetic corpus; the same settings always give the same cells."""

    grids: int = 80_000
    height: int = 16
    width: int = 16
    classes: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        require_range("--grids", self.grids, 1, 100_000_000)
        require_range("--height", self.height, MAX_EXTENT, 1024)
        require_range("--width", self.width, MAX_EXTENT, 1024)
        require_range("--classes", self.classes, 2, MAX_CLASSES)
        require_range("--seed", self.seed, 0, MAX_SEED)


@dataclass(frozen=True)
class _Shapes:
    """S shapes: offsets (S, 15) of their cells from the top left corner, padded with the first cell; sizes (S,)."""

    y: NDArray[np.int64]
    x: NDArray[np.int64]
    height: NDArray[np.int64]
    width: NDArray[np.int64]


def synthesise(spec: SyntheticSpec) -> NDArray[np.uint8]:
    """Return grids (N, H, W) uint8: on background 0, one to four objects of 2 to 15 cells that do not overlap.

    An object has one class, uniform over 1..C-1; 40 % are grown blobs, 20 % filled rectangles, 20 % lines and 20 %
    small patterns. On 16 x 16 cells and 10 classes about 93 % of the cells are background.
    """
    rng = np.random.default_rng(spec.seed)
    library, first = _library(rng)
    cells = np.zeros((spec.grids, spec.height * spec.width), dtype=np.uint8)
    objects = rng.integers(1, MAX_OBJECTS + 1, spec.grids)
    for slot in range(MAX_OBJECTS):
        _place(cells, np.flatnonzero(objects > slot), spec, library, first, rng)
    return cells.reshape(spec.grids, spec.height, spec.width)


def _place(
    cells: NDArray[np.uint8],
    todo: NDArray[np.int64],
    spec: SyntheticSpec,
    library: _Shapes,
    first: NDArray[np.int64],
    rng: np.random.Generator,
) -> None:
    """Add one object to each grid of `todo`; a grid without room after many tries gets none."""
    for _ in range(_TRIES):
        kind = rng.choice(len(_KINDS), size=todo.size, p=_KINDS)
        shape = rng.integers(first[kind], first[kind + 1])
        top = rng.integers(0, spec.height - library.height[shape] + 1)
        left = rng.integers(0, spec.width - library.width[shape] + 1)
        label = rng.integers(1, spec.classes, todo.size).astype(np.uint8)
        index = (top[:, None] + library.y[shape]) * spec.width + left[:, None] + library.x[shape]
        free = ~cells[todo[:, None], index].any(axis=1)
        cells[todo[free, None], index[free]] = label[free, None]
        todo = todo[~free]
        if todo.size == 0:
            return


def _library(rng: np.random.Generator) -> tuple[_Shapes, NDArray[np.int64]]:
    """Return all shapes, one kind after another, and the index where each kind starts and the last one ends."""
    kinds = [_blobs(rng), _rectangles(), _lines(), _patterns()]
    first = np.cumsum([0, *(len(kind) for kind in kinds)])
    padded = [cells + [cells[0]] * (MAX_CELLS - len(cells)) for kind in kinds for cells in kind]
    array = np.array(padded, dtype=np.int64)
    array -= array.min(axis=1, keepdims=True)
    y, x = array[:, :, 0], array[:, :, 1]
    return _Shapes(y, x, y.max(axis=1) + 1, x.max(axis=1) + 1), first


def _blobs(rng: np.random.Generator) -> list[list[tuple[int, int]]]:
    """Return shapes that grow cell by cell, each time by a random neighbour."""
    steps = ((0, 1), (1, 0), (0, -1), (-1, 0))
    blobs = []
    for size in rng.integers(2, MAX_CELLS + 1, _LIBRARY).tolist():
        cells = [(0, 0)]
        while len(cells) < size:
            y, x = cells[rng.integers(len(cells))]
            dy, dx = steps[rng.integers(4)]
            new = (y + dy, x + dx)
            ys, xs = [c[0] for c in (*cells, new)], [c[1] for c in (*cells, new)]
            if new not in cells and max(ys) - min(ys) < MAX_EXTENT > max(xs) - min(xs):
                cells.append(new)
        blobs.append(cells)
    return blobs


def _rectangles() -> list[list[tuple[int, int]]]:
    sides = [(h, w) for h in range(2, MAX_EXTENT) for w in range(2, MAX_EXTENT) if h * w <= MAX_CELLS]
    return [[(y, x) for y in range(h) for x in range(w)] for h, w in sides]


def _lines() -> list[list[tuple[int, int]]]:
    """Return horizontal, vertical and diagonal lines of 2 to 8 cells."""
    directions = ((0, 1), (1, 0), (1, 1), (1, -1))
    return [[(dy * i, dx * i) for i in range(n)] for n in range(2, MAX_EXTENT + 1) for dy, dx in directions]


def _patterns() -> list[list[tuple[int, int]]]:
    """Return small figures, each in its four rotations."""
    figures = []
    for text in _PATTERNS:
        array = np.array([[mark == "#" for mark in row] for row in text.split("/")])
        figures += [[(int(y), int(x)) for y, x in np.argwhere(np.rot90(array, k))] for k in range(4)]
    return figures
