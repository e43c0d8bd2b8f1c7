"""Synthetic corpus: objects on a background, with class statistics like those of ARC grids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vaefit.cache.errors import require_range
from vaefit.cache.scan.histogram import MAX_CLASSES
from vaefit.cache.store.counts_file import user_cache_folder

from ..recipe import MAX_SEED
from .hdf5_writer import write_grids

MAX_CELLS = 15
MAX_OBJECTS = 4
MAX_EXTENT = 8
"""Largest height and width of an object, so that each fits into the smallest grid."""
_LIBRARY = 8192
_TRIES = 40
# increase it with every change of the cells that `synthesise` draws, or an old corpus in the cache is used
_VERSION = 1

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


def synthesise(spec: SyntheticSpec) -> NDArray[np.uint8]:
    """Return grids (N, H, W) uint8: on background 0, one to four objects of 2 to 15 cells that do not overlap.

    An object has one class, uniform over 1..C-1; 40 % are grown blobs, 20 % filled rectangles, 20 % lines and 20 %
    small patterns. On 16 x 16 cells and 10 classes about 93 % of the cells are background.
    """
    rng = np.random.default_rng(spec.seed)
    shapes, first = _shapes(rng)
    sides = shapes.max(axis=1) + 1
    cells = np.zeros((spec.grids, spec.height * spec.width), dtype=np.uint8)
    objects = rng.integers(1, MAX_OBJECTS + 1, spec.grids)
    for slot in range(MAX_OBJECTS):
        todo = np.flatnonzero(objects > slot)
        for _ in range(_TRIES):  # a grid without room after so many tries gets no object
            kind = rng.choice(len(_KINDS), size=todo.size, p=_KINDS)
            shape = rng.integers(first[kind], first[kind + 1])
            top = rng.integers(0, spec.height - sides[shape, 0] + 1)
            left = rng.integers(0, spec.width - sides[shape, 1] + 1)
            label = rng.integers(1, spec.classes, todo.size).astype(np.uint8)
            index = (top[:, None] + shapes[shape, :, 0]) * spec.width + left[:, None] + shapes[shape, :, 1]
            free = ~cells[todo[:, None], index].any(axis=1)
            cells[todo[free, None], index[free]] = label[free, None]
            todo = todo[~free]
            if todo.size == 0:
                break
    return cells.reshape(spec.grids, spec.height, spec.width)


def embedded_corpus(announce: Callable[[str], None] = lambda _: None) -> Path:
    """Return the HDF5 file of 80,000 synthetic grids that a run without DATA uses; write it on first use.

    It lies in the user's cache folder. `announce` is called with a note before it is written. Raises RunError where the
    folder cannot be written.
    """
    file = user_cache_folder() / f"synthetic-v{_VERSION}.h5"
    if not file.exists():
        spec = SyntheticSpec()
        announce(f"making the embedded corpus of {spec.grids:,} grids, once: {file}")
        origin = f"vaefit synthetic corpus, version {_VERSION}, seed {spec.seed}"
        write_grids(file, synthesise(spec), spec.classes, origin, overwrite=True)
    return file


def _shapes(rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return S shapes, one kind after another, and the index where each kind starts and the last one ends.

    A shape is (15, 2): row and column of its cells from the top left corner, padded with the first cell.
    """
    kinds = [_blobs(rng), _rectangles(), _lines(), _patterns()]
    first = np.cumsum([0, *(len(kind) for kind in kinds)])
    padded = [cells + [cells[0]] * (MAX_CELLS - len(cells)) for kind in kinds for cells in kind]
    shapes = np.array(padded, dtype=np.int64)
    return shapes - shapes.min(axis=1, keepdims=True), first


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
