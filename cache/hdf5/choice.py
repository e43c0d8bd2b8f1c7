"""Choice of the array of a file that holds the labels: by name, shape, type and values."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from .blocks import ROW_BYTES
from .filters import load_plugins
from .label_view import KINDS, dropped_axes

if TYPE_CHECKING:
    import h5py

_LABELS = re.compile(
    "labels?|masks?|targets?|segs?|segm|segmentations?|annotations?|gt|truth|groundtruth|semantic|class|classes|category|"
    "categories|grids?|landcover|y"
)
_OTHERS = re.compile(
    "images?|imgs?|inputs?|x|photos?|pictures?|pixels?|rgb|gr[ae]y|raw|scans?|ct|mri|intensity|features?|depth|height|"
    "instances?|ids?|index|indices"
)
_SAMPLED = 1 << 16
"""Most cells that are looked at."""
_FEW = 32
"""Labels of a dataset without a telling name have at most so many values in the sample; a grey image has more."""


class Candidate(NamedTuple):
    """An array that may hold the labels."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    kind: Literal["labels", "others"] | None
    """Content that the name states, see `name_kind`."""


def could_be_labels(arrays: Sequence[Candidate], values: Callable[[str], int]) -> list[str]:
    """Return the names of the arrays that could be meant as the labels: one where that is clear.

    The only array is meant, whatever its name. Of several, one with a label's name is meant before the others; without
    such a name, one of three dimensions that has no image's name, or few values. `values` counts those of an array.
    """
    if len(arrays) <= 1:
        return [array.name for array in arrays]
    usable = [array for array in arrays if array.dtype.kind in KINDS and 0 not in array.shape]
    grids = [array for array in usable if len(array.shape) - len(dropped_axes(array.shape)) == 3]
    named = [array for array in grids if array.kind == "labels"]
    if not named:  # one label for each grid is a label too, but not a number for each class
        lengths = {array.shape[0] for array in grids or usable}
        named = [array for array in usable if array.kind == "labels" and array.shape[0] in lengths]
    if not named:
        unnamed = [array for array in grids if array.kind is None and array.dtype.kind != "f"]
        few = unnamed if len(unnamed) == 1 else [array for array in unnamed if values(array.name) <= _FEW]
        named = few if len(few) == 1 else unnamed or (grids and usable)
    return [array.name for array in named]


def label_datasets(found: list[h5py.Dataset]) -> list[h5py.Dataset]:
    """Return the datasets of a file that could be meant as the labels, see `could_be_labels`.

    An attribute `classes` says as much as a label's name; coordinates of an axis are never meant.
    """
    arrays = {str(number): d for number, d in enumerate(found) if d.shape and not _is_scale(d)}
    several = len(arrays) > 1
    candidates = [Candidate(n, d.shape, d.dtype, dataset_kind(d) if several else None) for n, d in arrays.items()]
    return [arrays[name] for name in could_be_labels(candidates, lambda name: _values(arrays[name]))]


def dataset_kind(dataset: h5py.Dataset) -> Literal["labels", "others"] | None:
    """Return what the name of a dataset says that it holds; an attribute `classes` says labels."""
    name = dataset.name
    path = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
    return "labels" if "classes" in dataset.attrs else name_kind(path)


def name_kind(path: str) -> Literal["labels", "others"] | None:
    """Return what the last part of a path, or else one before it, says of an array; None where none says anything."""
    for part in reversed(path.split("/")):
        words = re.findall("[a-z]+", re.sub("(?<=[a-z])(?=[A-Z])", " ", part).lower())
        if any(map(_LABELS.fullmatch, words)):
            return "labels"
        if any(map(_OTHERS.fullmatch, words)):
            return "others"
    return None


def _is_scale(dataset: h5py.Dataset) -> bool:
    """True for the coordinates of another dataset's axis, as netCDF stores them."""
    return dataset.ndim == 1 and dataset.attrs.get("CLASS") in (b"DIMENSION_SCALE", "DIMENSION_SCALE")


def _values(dataset: h5py.Dataset) -> int:
    """Return the number of different values in a corner of the dataset; as many as there may be if it is not read."""
    if dataset.is_virtual or dataset.external or math.prod(dataset.chunks or ()) * dataset.dtype.itemsize > ROW_BYTES:
        return _SAMPLED
    load_plugins(dataset)
    corner: list[slice] = []
    room = _SAMPLED
    for side in reversed(dataset.shape):
        corner.insert(0, slice(min(side, max(1, room))))
        room //= side
    with suppress(OSError):
        return int(np.unique(dataset[tuple(corner)]).size)
    return _SAMPLED
