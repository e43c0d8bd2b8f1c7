"""Animation of the reconstructions: the frames of a run, compressed as text for the page."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...fitting.result import OverfitResult, Record
from ...metrics.accuracy import kept_cells
from ...results.json_values import plain
from ...results.overfit_summary import RunSummary

LIMIT = 1_100_000
"""Characters of the compressed frames. With everything else the page stays below 2 MB."""
FEW_FRAMES, FEW_GRIDS = 12, 8
"""Frames are dropped down to the first number, then grids down to the second, then frames again."""
Frame = tuple[int, float | None, float | None, int | None]
"""Step, pixel accuracy, accuracy and label of the worst class; None for a step without a record."""


def animation_data(
    result: OverfitResult, run: RunSummary, names: Sequence[str], colours: Sequence[str]
) -> dict[str, Any] | None:
    """Return the data of the page's script, with as many frames and grids as fit; None if one grid does not fit twice.

    `packed` is base64 of zlib of bytes: the targets (G, H, W); if `ignoring`, 1 for each ignored cell; the frames
    (F, G, H, W), each but the first XOR the frame before, so that unchanged cells are 0.

    Args:
        names: names of the batch's grids, in their order.
        colours: of the classes, as `#rrggbb`.
    """
    steps, frames = result.film.steps, result.film.frames
    targets = result.batch.targets[: frames.shape[1]]
    ignored = ~kept_cells(targets, result.ignore_index)
    still = [np.where(ignored, 0, targets), *([ignored] if result.ignore_index is not None else [])]
    places, grids = list(range(len(steps))), frames.shape[1]
    while True:
        pictures = [picture[:grids].astype(np.uint8) for picture in still]
        packed = _packed(pictures, [frames[place, :grids] for place in places])
        if packed is not None:
            break
        if len(places) > FEW_FRAMES or (grids <= FEW_GRIDS and len(places) > 2):
            # every second place and the last; of three places, the first and the last
            places = [*(places[:-1:2] if len(places) > 3 else places[:1]), places[-1]]
        elif grids > 1:
            grids = -(-grids // 2)
        else:
            return None
    height, width = frames.shape[2:]
    data: dict[str, Any] = plain(
        {
            "height": height,
            "width": width,
            "names": names[:grids],
            "colours": colours,
            "frames": _frames([steps[place] for place in places], result.history, run),
            "ignoring": result.ignore_index is not None,
            "packed": packed,
        }
    )
    return data


def _packed(still: Sequence[NDArray[np.uint8]], frames: Sequence[NDArray[np.uint8]]) -> str | None:
    """Return the pictures and the frames as text; None as soon as the text is too long."""
    packer, found, length = zlib.compressobj(6), [], 0
    moved = (after ^ before for before, after in pairwise(frames))
    for picture in chain(still, frames[:1], moved):
        found.append(packer.compress(picture.tobytes()))
        length += len(found[-1])
        if length > LIMIT * 3 // 4:
            return None
    text = base64.b64encode(b"".join([*found, packer.flush()])).decode("ascii")
    return text if len(text) <= LIMIT else None


def _frames(steps: list[int], history: Sequence[Record], run: RunSummary) -> tuple[Frame, ...]:
    records = {record.step: record.accuracies for record in history}
    found: list[Frame] = []
    for step in steps[:-1]:
        a = records.get(step)
        found.append((step, None, None, None) if a is None else (step, a.pixel, a.worst, a.worst_class))
    # the last frame is the reconstruction of the verdict; if a run diverged, the last record is another one
    return (*found, (steps[-1], run.pixel_accuracy, run.worst_class_accuracy, run.worst_class))
