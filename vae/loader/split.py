"""Split of a dataset: each grid is for training, for validation or for the test."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Literal, Protocol, get_args

import h5py
import numpy as np
from numpy.typing import NDArray

from vaefit.cache.errors import DataError, SettingError, require, require_range
from vaefit.cache.hdf5.choice import dataset_kind
from vaefit.cache.hdf5.dataset import damage_named, dataset_path, open_grids
from vaefit.cache.hdf5.label_view import dropped_axes
from vaefit.cache.hdf5.open_files import open_file
from vaefit.cache.location import Location
from vaefit.cache.shards import Data, data_names, find_shards

from ..recipe import MAX_SEED

Role = Literal["train", "val", "test"]
ROLES: tuple[Role, ...] = get_args(Role)
LEFT_OUT = 255
"""Value in `Split.roles` of a grid without a role."""
ROLE_NAMES: dict[str, Role] = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Possible names of a dataset in a file, and the role of each."""

BLOCK = 1 << 16
"""Consecutive grids whose roles are drawn at once, so that memory does not grow with the dataset."""
_STREAM = 0x5717
"""Seeds the split's random numbers apart from other uses of the same seed."""


class Split(Protocol):
    """Role of each grid; equal splits give the same roles in every process."""

    def roles(self, first: int, stop: int) -> NDArray[np.uint8]:
        """Return (stop - first,): for each of the grids first..stop-1 its index into ROLES, or LEFT_OUT.

        Raises DataError for grids outside the dataset that was split.
        """

    def size(self, role: Role) -> int:
        """Return the number of grids of the whole dataset with the role."""


@dataclass(frozen=True)
class SeededSplit:
    """Random split with exact counts: `round(share * used)` grids for validation and test, the others for training.

    The dataset is cut into blocks of 65,536 grids. Each block has its part of every role, to within one grid; the grids
    of a role are drawn uniformly in the block.

    Raises SettingError where a share lies outside [0, 1), where a requested role would hold no grid, and where `limit`
    or the seed is out of range.
    """

    grids: int
    """N of the dataset."""
    val_share: float
    test_share: float = 0.0
    seed: int = 0
    limit: int | None = None
    """Most grids that are used, drawn from the whole dataset; the others are left out."""

    def __post_init__(self) -> None:
        for option, share in (("--val-share", self.val_share), ("--test-share", self.test_share)):
            require(0 <= share < 1, option, share, "a share in [0, 1)")
        require_range("--split-seed", self.seed, 0, MAX_SEED)
        if self.limit is not None:
            require(self.limit >= 1, "--limit", self.limit, "a whole number from 1 on")
        if self.size("val") == 0:
            self._raise_empty("there is no grid to validate on", "--val-share", self.val_share)
        if self.test_share > 0 and self.size("test") == 0:
            self._raise_empty("there is no grid for the test", "--test-share", self.test_share)
        if self.size("train") < 1:
            got = f"{self.val_share} and --test-share {self.test_share} of {self._used:,} grids"
            do = "Pass smaller shares" + (", or a higher --limit." if self._used < self.grids else ".")
            raise SettingError("there is no grid left to train on", "--val-share", got, do)

    def roles(self, first: int, stop: int) -> NDArray[np.uint8]:
        """Return the roles (stop - first,) as `Split.roles`; DataError for grids that are not among the N."""
        _check_range(first, stop, self.grids)
        found = np.empty(stop - first, np.uint8)
        for number in range(first // BLOCK, -(-stop // BLOCK)):
            begin, end = max(first, number * BLOCK), min(stop, (number + 1) * BLOCK)
            found[begin - first : end - first] = _drawn(self, number)[begin - number * BLOCK : end - number * BLOCK]
        return found

    def size(self, role: Role) -> int:
        """Return the exact number of grids with the role."""
        val, test = round(self.val_share * self._used), round(self.test_share * self._used)
        return {"train": self._used - val - test, "val": val, "test": test}[role]

    @property
    def _used(self) -> int:
        return self.grids if self.limit is None else min(self.limit, self.grids)

    def _raise_empty(self, what: str, option: str, share: float) -> None:
        if self._used == 1:
            raise SettingError(what, "--limit", "1 grid in all", "Use two grids or more.")
        # half a grid is not enough, for round() gives the even number then
        do = f"Raise {option} to {min(0.5, 1 / self._used):.2g} or more"
        higher = ", or raise --limit." if self._used < self.grids else "."
        raise SettingError(what, option, f"{share} of {self._used:,} grids", do + higher)

    def _before(self, end: int) -> NDArray[np.int64]:
        """Return (3,): how many of the first `end` grids have each role.

        The used grids are divided first, then the validation grids of these, then the test grids of the rest. Three
        independent roundings could give a block more grids than it has.
        """
        used = self._used * end // self.grids
        val = self.size("val") * used // self._used
        rest = self._used - self.size("val")
        test = self.size("test") * (used - val) // rest
        return np.array([used - val - test, val, test])


@lru_cache(maxsize=64)
def _drawn(split: SeededSplit, number: int) -> NDArray[np.uint8]:
    """Return the roles (n,) of one block, read-only because they are cached."""
    begin, end = number * BLOCK, min(split.grids, (number + 1) * BLOCK)
    quotas = split._before(end) - split._before(begin)
    # a block may be drawn again and again, so the most frequent role of it is not drawn
    names = np.array([*range(len(ROLES)), LEFT_OUT], np.uint8)
    quotas = np.append(quotas, end - begin - quotas.sum())
    most = int(quotas.argmax())
    roles = np.full(end - begin, names[most], np.uint8)
    quotas[most] = 0
    drawn = np.random.default_rng([split.seed, _STREAM, number]).choice(end - begin, quotas.sum(), replace=False)
    roles[drawn] = np.repeat(names, quotas)
    roles.setflags(write=False)
    return roles


@dataclass(frozen=True)
class NamedSplit:
    """Split by shards: all grids of a shard have one role."""

    ends: tuple[int, ...]
    """End of each shard among the grids of all shards."""
    shards: tuple[Role, ...]
    """Role of each shard, in the order of their grids."""

    def roles(self, first: int, stop: int) -> NDArray[np.uint8]:
        """Return the roles (stop - first,) as `Split.roles`; DataError for grids that are in no shard."""
        _check_range(first, stop, self.ends[-1])
        roles = np.array([ROLES.index(role) for role in self.shards], np.uint8)
        return roles[np.searchsorted(self.ends, np.arange(first, stop), "right")]

    def size(self, role: Role) -> int:
        """Return the number of grids with the role."""
        shards = zip(np.diff(self.ends, prepend=0).tolist(), self.shards, strict=True)
        return sum(grids for grids, found in shards if found == role)


def find_named_splits(data: Data) -> tuple[Location, ...] | None:
    """Return the datasets for training, validation and the test (if any) that a file holds, in this order.

    They are integer labels (N, H, W), in no group of images, named `train`, `val` (or `valid`, or `validation`) and
    `test`, in the root or in one group. Returns None unless `data` is one file without a dataset's name and without a
    pattern; where several groups hold such datasets, or one group has two for a role; and for a file that cannot be
    opened, since opening its grids raises the error. Raises DataError where its structure is damaged.
    """
    named = data_names(data)
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
            groups = _datasets_by_group(handle)
    found = [group for group in groups if {"train", "val"} <= {role for role, _ in group}]
    if len(found) != 1 or len({role for role, _ in found[0]}) < len(found[0]):
        return None
    paths = dict(found[0])
    return tuple(Location(location.file, paths[role]) for role in ROLES if role in paths)


def _datasets_by_group(handle: h5py.File) -> list[list[tuple[Role, str]]]:
    """Return (role, path) of the datasets with a role's name, one list for each group."""
    groups: dict[str, list[tuple[Role, str]]] = {}

    def visit(_: str, item: object) -> None:
        if (
            isinstance(item, h5py.Dataset)
            and item.shape
            and item.dtype.kind in "iub"
            and dataset_kind(item) != "others"
        ):
            if item.ndim - len(dropped_axes(item.shape)) != 3:
                return
            path = dataset_path(item)
            group, _, name = path.rpartition("/")
            if name in ROLE_NAMES:
                groups.setdefault(group, []).append((ROLE_NAMES[name], path))

    handle.visititems(visit)
    return list(groups.values())


def named_split(locations: Sequence[Location]) -> NamedSplit:
    """Return the split of the datasets for training, validation and the test (if there is a third), in this order.

    It splits the grids of `Grids(locations)`, whose order may be another. Raises DataError as `open_grids`.
    """
    shards = find_shards(list(locations))
    lengths = []
    for shard in shards:
        with open_grids(shard) as dataset:
            lengths.append(int(dataset.shape[0]))
    roles = tuple(ROLES[list(locations).index(shard)] for shard in shards)
    return NamedSplit(tuple(accumulate(lengths)), roles)


def _check_range(first: int, stop: int, grids: int) -> None:
    if not 0 <= first <= stop <= grids:
        what = "the dataset is not the one that was split"
        raise DataError(what, got=f"grids {first:,} to {stop - 1:,} of {grids:,}", do="Split it anew.")
