"""Import of a folder of ARC tasks (JSON) as one dataset of grids."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaefit.cache.errors import DataError, require_range
from vaefit.cache.regular_file import read_regular

CLASSES = 10
MAX_SIDE = 1024
MAX_TASK = 16 << 20
"""Bytes of the file of a task; the largest of ARC has 50 kB."""


@dataclass
class ArcImport:
    """Grids read from ARC tasks, with the number of grids and files left out for each reason."""

    grids: NDArray[np.uint8]
    """(N, S, S), padded at the right and at the bottom; S is the largest allowed side."""
    tasks: int
    left_out: Counter[str]
    """Number of grids or files by reason."""


def import_arc(folder: Path, max_side: int = 16, pad_class: int = 0) -> ArcImport:
    """Read every train and test, input and output grid of the tasks below `folder` (recursive, in order of path).

    Grids that are larger than `max_side`, ragged, empty or labelled outside 0..9 are left out and counted, as are JSON
    files that are not tasks. Other keys of a task are ignored. Raises DataError for a missing folder, a file that
    cannot be read, and a folder without a grid.
    """
    require_range("--max-side", max_side, 1, MAX_SIDE)
    require_range("--pad-class", pad_class, 0, CLASSES - 1)
    if not folder.is_dir():
        raise DataError("this is not a folder of ARC tasks", str(folder), do="Pass a folder with .json tasks in it.")
    grids: list[NDArray[np.uint8]] = []
    left_out: Counter[str] = Counter()
    tasks = 0
    for file in sorted(folder.rglob("*.json")):
        raw_grids = _task_grids(file)
        if raw_grids is None:
            left_out["files that are not ARC tasks"] += 1
            continue
        tasks += 1
        for raw in raw_grids:
            grid = _grid_or_reason(raw, max_side)
            if isinstance(grid, str):
                left_out[grid] += 1
                continue
            padded = np.full((max_side, max_side), pad_class, dtype=np.uint8)
            padded[: grid.shape[0], : grid.shape[1]] = grid
            grids.append(padded)
    if not grids:
        reasons = ", ".join(f"{n} {reason}" for reason, n in left_out.items()) or "no .json file"
        raise DataError("no grid was found", str(folder), got=reasons, do="Check the folder, or raise --max-side.")
    return ArcImport(np.stack(grids), tasks, left_out)


def _task_grids(file: Path) -> Iterator[Any] | None:
    """Return the raw grids of a task; None where the file is not a task."""
    try:
        task = json.loads(read_regular(file, MAX_TASK).decode())
    except (ValueError, RecursionError):
        return None
    except OSError as error:
        do = "Make it readable, or move it out of the folder."
        raise DataError("the task cannot be read", str(file), error.strerror or str(error), do) from error
    if not isinstance(task, dict):
        return None
    pairs = [pair for part in ("train", "test") if isinstance(task.get(part), list) for pair in task[part]]
    if not pairs or not all(isinstance(pair, dict) for pair in pairs):
        return None
    # a test pair without its solution has no output
    return (pair[side] for pair in pairs for side in ("input", "output") if side in pair)


def _grid_or_reason(raw: Any, max_side: int) -> NDArray[np.uint8] | str:
    """Return the grid as an array, or the reason why it is left out."""
    if not isinstance(raw, list) or not all(isinstance(row, list) and all(type(c) is int for c in row) for row in raw):
        return "grids that are not rectangles of integers"  # numpy would take `true` for a 1
    try:
        array = np.asarray(raw)
    except ValueError:  # ragged
        return "grids that are not rectangles of integers"
    if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "iu":
        return "grids that are not rectangles of integers"
    if max(array.shape) > max_side:
        return f"grids larger than {max_side} x {max_side}"
    if array.min() < 0 or array.max() >= CLASSES:
        return f"grids with labels outside 0..{CLASSES - 1}"
    return array.astype(np.uint8)
