"""Choice of the dataset of a file that holds the labels: by name, shape, type and values."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

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


def label_datasets(found: list[h5py.Dataset]) -> list[h5py.Dataset]:
    """Return the datasets of a file that could be meant as the labels: one where that is clear.

    A file's only dataset is meant, whatever its name. Of several, one with a label's name or an attribute `classes` is
    meant before the others; without such a name, one of three dimensions that has no image's name, or few values.
    """
    arrays = [d for d in found if d.shape and not _is_scale(d)]
    if len(arrays) <= 1:
        return arrays
    usable = [d for d in arrays if d.dtype.kind in KINDS and 0 not in d.shape]
    kinds = {d.name: name_kind(d) for d in usable}
    grids = [d for d in usable if d.ndim - len(dropped_axes(d.shape)) == 3]
    named = [d for d in grids if kinds[d.name] == "labels"]
    if not named:  # one label for each grid is a label too, but not a number for each class
        lengths = {d.shape[0] for d in grids or usable}
        named = [d for d in usable if kinds[d.name] == "labels" and d.shape[0] in lengths]
    if named:
        return named
    unnamed = [d for d in grids if kinds[d.name] is None and d.dtype.kind != "f"]
    few = unnamed if len(unnamed) == 1 else [d for d in unnamed if _values(d) <= _FEW]
    return few if len(few) == 1 else unnamed or (grids and usable)


def name_kind(dataset: h5py.Dataset) -> Literal["labels", "others"] | None:
    """Return what the name of a dataset, or else of a group around it, says that it holds; an attribute may say it."""
    if "classes" in dataset.attrs:
        return "labels"
    name = dataset.name
    path = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
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
