"""Pictures of the reconstruction along a run, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..metrics.accuracy import Labels

MOST_FRAMES = 64
MOST_GRIDS = 32
MOST_CELLS = 1 << 17
"""Cells of one frame; 64 such frames take 8 MB."""


@dataclass(frozen=True)
class Frames:
    """Reconstructions of the first grids of the batch, at steps spread evenly over the run."""

    steps: tuple[int, ...]
    """Updates done at each frame, rising; the last frame is the end of the run."""
    frames: NDArray[np.uint8]
    """(F, G, H, W) predicted classes of the batch's first G grids."""


class FrameRecorder:
    """Records the frames of a run of unknown length: when there are too many, every other frame is dropped."""

    def __init__(self, batch: Labels) -> None:  # (B, H, W)
        self._grids = max(1, min(len(batch), MOST_GRIDS, MOST_CELLS // max(batch[0].size, 1)))
        self._every = 1
        self._frames: dict[int, NDArray[np.uint8]] = {}

    def is_due(self, step: int) -> bool:
        """Return True where a frame is taken at the step."""
        return step % self._every == 0

    def add(self, step: int, predictions: Labels) -> None:
        """Add the predictions (B, H, W) of the model after `step` updates; classes are below 256."""
        self._frames[step] = predictions[: self._grids].astype(np.uint8)
        if len(self._frames) > MOST_FRAMES:
            self._every *= 2
            self._frames = {s: frame for s, frame in self._frames.items() if s % self._every == 0 or s == step}

    def frames(self) -> Frames:
        """Return the frames taken so far, at least one."""
        steps = sorted(self._frames)
        return Frames(tuple(steps), np.stack([self._frames[step] for step in steps]))
