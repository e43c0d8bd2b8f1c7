"""Pictures of the reconstruction along a run, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..metrics.accuracy import Labels

MOST_FRAMES = 64
MOST_GRIDS = 32
MOST_CELLS = 1 << 17
"""Cells of one frame; 64 frames of them are 8 MB."""


@dataclass(frozen=True)
class Frames:
    """The reconstructions of the first grids of the batch, at steps spread evenly over the run."""

    steps: tuple[int, ...]
    """Updates done at each frame, rising; the last is the end of the run."""
    frames: NDArray[np.uint8]
    """(F, G, H, W) predicted classes of the batch's first G grids."""


class FrameRecorder:
    """Takes the frames of a run whose length is not known: when there are too many, every other one is dropped."""

    def __init__(self, grids: Labels) -> None:
        """`grids` (B, H, W) is the batch."""
        self._grids = max(1, min(len(grids), MOST_GRIDS, MOST_CELLS // max(grids[0].size, 1)))
        self._every = 1
        self._frames: dict[int, NDArray[np.uint8]] = {}

    def wants(self, step: int) -> bool:
        """True where the step falls on a frame."""
        return step % self._every == 0

    def take(self, step: int, predictions: Labels) -> None:
        """Keep the predictions (B, H, W) of the model after `step` updates; classes are below 256."""
        self._frames[step] = predictions[: self._grids].astype(np.uint8)
        if len(self._frames) > MOST_FRAMES:
            self._every *= 2
            self._frames = {s: frame for s, frame in self._frames.items() if s % self._every == 0 or s == step}

    def film(self) -> Frames:
        """What was taken so far; at least one frame must have been."""
        steps = sorted(self._frames)
        return Frames(tuple(steps), np.stack([self._frames[step] for step in steps]))
