"""Reading a folder of ARC tasks (JSON) as one dataset of grids."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaefit.cache.errors import DataError, require_range

CLASSES = 10
MAX_SIDE = 1024


@dataclass
class ArcImport:
    """Grids read from ARC tasks, and what was left out and why."""

    grids: NDArray[np.uint8]
    """(N, S, S), S the largest side allowed, padded at the right and at the bottom."""
    tasks: int
    left_out: Counter[str] = field(default_factory=Counter)
    """How many grids or files for each reason."""


def import_arc(folder: Path, max_side: int = 16, pad_class: int = 0) -> ArcImport:
    """Read every train and test, input and output grid of the tasks below `folder` (recursive, in order of path).

    A grid that is larger than `max_side`, ragged, empty or labelled outside 0..9 is left out and counted, as is a JSON
    file that is not a task. Other keys of a task are ignored. Raises DataError where the folder or every grid is
    missing.
    """
    require_range("--max-side", max_side, 1, MAX_SIDE)
    require_range("--pad-class", pad_class, 0, CLASSES - 1)
    if not folder.is_dir():
        raise DataError("this is not a folder of ARC tasks", str(folder), do="Pass a folder with .json tasks in it.")
    grids: list[NDArray[np.uint8]] = []
    left_out: Counter[str] = Counter()
    tasks = 0
    for file in sorted(folder.rglob("*.json")):
        pairs = _pairs(file)
        if pairs is None:
            left_out["files that are not ARC tasks"] += 1
            continue
        tasks += 1
        for raw in pairs:
            read = _grid(raw, max_side)
            if isinstance(read, str):
                left_out[read] += 1
                continue
            padded = np.full((max_side, max_side), pad_class, dtype=np.uint8)
            padded[: read.shape[0], : read.shape[1]] = read
            grids.append(padded)
    if not grids:
        reasons = ", ".join(f"{n} {reason}" for reason, n in left_out.items()) or "no .json file"
        raise DataError("no grid was found", str(folder), got=reasons, do="Check the folder, or raise --max-side.")
    return ArcImport(np.stack(grids), tasks, left_out)


def _pairs(file: Path) -> Iterator[Any] | None:
    """The grids of a task, None where the file is not one."""
    try:
        task = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None
    except OSError as error:
        do = "Make it readable, or move it out of the folder."
        raise DataError("the task cannot be read", str(file), error.strerror or str(error), do) from error
    if not isinstance(task, dict):
        return None
    pairs = [pair for part in ("train", "test") for pair in _list(task.get(part))]
    if not pairs or not all(isinstance(pair, dict) for pair in pairs):
        return None
    # a test without its solution has no output; that is not an error
    return (pair[side] for pair in pairs for side in ("input", "output") if side in pair)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _grid(raw: Any, max_side: int) -> NDArray[np.uint8] | str:
    """The grid as an array, or why it is left out."""
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
