"""Augmentation of grids: random rotations, mirror images and permutations of the classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vaefit.cache.errors import SettingError

WORDS = ("rotate", "flip", "colours")


@dataclass(frozen=True)
class Augmentation:
    """Random transformation of each grid of a batch."""

    rotate: bool
    """Rotate by 0, 90, 180 or 270 degrees, or by 0 or 180 where H and W differ."""
    flip: bool
    """Mirror left to right with probability 1/2."""
    colours: bool
    """Permute the classes uniformly; the background and the ignored label stay as they are."""
    background: int
    classes: int
    ignore_index: int | None = None

    @classmethod
    def parse(cls, text: str, background: int, classes: int, ignore_index: int | None = None) -> Augmentation:
        """Parse words separated by commas, as `rotate,flip,colours`, or `none`; SettingError for any other word."""
        words = [] if text == "none" else [word.strip() for word in text.split(",")]
        for word in words:
            if word not in WORDS:
                do = f"Use {', '.join(WORDS)}, separated by commas, or none."
                raise SettingError("there is no such augmentation", "--augment", word or "an empty word", do)
        rotate, flip, colours = (word in words for word in WORDS)
        return cls(rotate, flip, colours, background, classes, ignore_index)

    def __call__(
        self, grids: NDArray[np.integer], rng: np.random.Generator, before: int = 0, size: int | None = None
    ) -> NDArray[np.integer]:
        """Return the transformed grids (B, H, W) in the same dtype; each grid has its own random numbers.

        `grids` is not changed. For one rank's rows of a batch, `before` is the number of rows before them and `size`
        the size of the whole batch: each grid gets the random numbers that it gets in a single process.
        """
        rows, size = slice(before, before + len(grids)), size or len(grids)
        found = self._turned(grids, rng, rows, size) if self.rotate or self.flip else grids.copy()
        return self._recoloured(found, rng, rows, size) if self.colours else found

    def _turned(
        self, grids: NDArray[np.integer], rng: np.random.Generator, rows: slice, size: int
    ) -> NDArray[np.integer]:
        _, height, width = grids.shape
        turns = rng.integers(0, 4, size) if self.rotate else np.zeros(size, np.int64)
        if height != width:
            turns = turns // 2 * 2
        mirrored = rng.integers(0, 2, size) == 1 if self.flip else np.zeros(size, bool)
        turns, mirrored = turns[rows], mirrored[rows]
        found = np.empty_like(grids)
        for turn in range(4):
            for mirror in (False, True):
                here = np.flatnonzero((turns == turn) & (mirrored == mirror))
                if here.size:
                    turned = np.rot90(grids[here], turn, axes=(1, 2))
                    found[here] = turned[:, :, ::-1] if mirror else turned
        return found

    def _recoloured(
        self, grids: NDArray[np.integer], rng: np.random.Generator, rows: slice, size: int
    ) -> NDArray[np.integer]:
        free = np.array([c for c in range(self.classes) if c not in (self.background, self.ignore_index)], np.int64)
        names = np.tile(np.arange(self.classes, dtype=grids.dtype), (size, 1))
        names[:, free] = rng.permuted(np.tile(free, (size, 1)), axis=1)
        names, cells = names[rows], grids.reshape(len(grids), grids.shape[1] * grids.shape[2])
        ignored = cells == self.ignore_index  # nowhere, if it is None
        named = np.take_along_axis(names, np.where(ignored, self.background, cells).astype(np.int64), axis=1)
        return np.where(ignored, cells, named).reshape(grids.shape)
