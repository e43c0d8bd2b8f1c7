"""Notes on labels that hardly are classes: void labels, gaps between labels, and cells that were never written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .hdf5.blocks import Unwritten

RENUMBER = "`vaefit-cli data relabel DATA NEW.h5 --renumber` numbers the labels from 0."
"""Advice for labels with gaps."""
_VOID = (127, 255, 32767, 65535)
"""Largest labels of the integer types, which mark cells without a class in many datasets."""
_SPARE = 8
"""A dataset may lack so many classes more than half of them before its labels are said to have gaps."""


def gap_notes(labels: NDArray[np.intp], classes: int, where: str) -> Iterator[str]:
    """Yield a note where most classes never occur, or the largest label lies far above the others."""
    if labels.size < 2 or labels[-1] + 1 < classes:
        return
    below, largest = (int(label) for label in labels[-2:])
    far = largest - below > 1 and (largest in _VOID or largest - below > labels.size)
    scattered = below + 1 > 2 * (labels.size - 1) + _SPARE
    if far and labels.size == 2:
        yield f"{where}: the labels are {below} and {largest} only, which makes {classes} classes. {RENUMBER}"
    elif far and not scattered:
        what = f"label {largest} lies far above the others, 0 to {below}, which makes {classes} classes"
        yield f"{where}: {what}; if it marks cells without a class, pass --ignore-index {largest}"
    elif scattered or classes > 2 * labels.size + _SPARE:
        yield f"{where}: {labels.size} labels up to {largest} make {classes} classes. {RENUMBER}"


def unwritten_note(parts: Sequence[Unwritten], cells: int, where: str) -> str:
    """Return the note on cells that were never written, of one or more files."""
    chunks, labels = sum(part.chunks for part in parts), {part.label for part in parts}
    value = f"the fill value, {labels.pop()}" if len(labels) == 1 and None not in labels else "the fill value"
    among = f", {chunks:,} chunks," if chunks else ""
    never = f"{sum(part.cells for part in parts):,} of {cells:,} cells{among} were never written"
    return f"{where}: {never}: they count as {value}"
