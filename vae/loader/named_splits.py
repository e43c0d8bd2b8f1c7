"""Finding the split that a file comes with: datasets named after their roles."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import h5py

from vaefit.cache.hdf5.dataset import damage_named, dataset_path
from vaefit.cache.hdf5.open_files import open_file
from vaefit.cache.location import Location
from vaefit.cache.shards import Data

NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What each dataset may be called, and its role."""


def find_named_splits(data: Data) -> tuple[Location, ...] | None:
    """The datasets for training, validation and, where there is one, the test, in this order; None without them.

    `data` must be one file, of which no dataset is named, and which is no pattern. In its root, or in one of its
    groups, it holds integer datasets of three dimensions called `train`, `val` (or `valid`, or `validation`) and
    perhaps `test`; None too where several groups do, or where two datasets could be the one for validation. None for
    a file that cannot be opened: whoever opens its grids is told why. DataError where its structure is damaged.
    """
    named = [data] if isinstance(data, (str, Path, Location)) else list(data)
    if len(named) != 1:
        return None
    location = Location.parse(named[0])
    if location.dataset is not None or not location.exists():
        return None
    with ExitStack() as stack:
        try:
            handle = stack.enter_context(open_file(location.file))
        except OSError:
            return None
        with damage_named(location):
            groups = _groups(handle)
    found = [group for group in groups if {"train", "val"} <= {role for role, _ in group}]
    if len(found) != 1 or len({role for role, _ in found[0]}) < len(found[0]):
        return None
    paths = dict(found[0])
    return tuple(Location(location.file, paths[role]) for role in ("train", "val", "test") if role in paths)


def _groups(handle: h5py.File) -> list[list[tuple[str, str]]]:
    """Of each group the datasets that are named after a role: the role, and the path."""
    groups: dict[str, list[tuple[str, str]]] = {}

    def visit(_: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim == 3 and item.dtype.kind in "iu":
            path = dataset_path(item)
            group, _, name = path.rpartition("/")
            if name in NAMES:
                groups.setdefault(group, []).append((NAMES[name], path))

    handle.visititems(visit)
    return list(groups.values())
