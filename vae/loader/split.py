"""Which grids of a dataset are for training, for validation and for the test."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from vaefit.cache.errors import DataError, SettingError, require, require_range
from vaefit.cache.hdf5.dataset import open_grids
from vaefit.cache.location import Location
from vaefit.cache.shards import find_shards

Role = Literal["train", "val", "test"]
ROLES: tuple[Role, ...] = get_args(Role)
LEFT_OUT = 255
"""What `Split.roles` says of a grid that has no role."""

BLOCK = 1 << 16
"""Consecutive grids that are drawn at once: whatever the size of the dataset, memory is that of a few blocks."""
MAX_SEED = 2**63 - 1
_STREAM = 0x5717
"""Keeps the split's random numbers apart from others of the same seed."""


class Split(Protocol):
    """The role of each grid; the same for equal splits, in every process."""

    def roles(self, first: int, stop: int) -> NDArray[np.uint8]:
        """(stop - first,), for grids first..stop-1 of the dataset an index into ROLES, or LEFT_OUT.

        DataError for grids that the dataset which was split does not have.
        """

    def size(self, role: Role) -> int:
        """How many grids of the whole dataset have the role."""


@dataclass(frozen=True)
class SeededSplit:
    """A random choice with exact counts: `round(share * used)` grids for validation and test, the others to train on.

    The dataset is cut into blocks of 65,536 grids, each of which gets its part of every role, to within one grid; which
    grids of a block, is drawn uniformly.

    Raises SettingError where a share lies outside [0, 1), where a role that is wanted would hold no grid, and where
    `limit` or the seed is out of range.
    """

    grids: int
    """N of the dataset."""
    val_share: float
    test_share: float = 0.0
    seed: int = 0
    limit: int | None = None
    """Use at most so many grids, drawn from the whole dataset; the others are left out."""

    def __post_init__(self) -> None:
        for option, share in (("--val-share", self.val_share), ("--test-share", self.test_share)):
            require(0 <= share < 1, option, share, "a share in [0, 1)")
        require_range("--split-seed", self.seed, 0, MAX_SEED)
        if self.limit is not None:
            require(self.limit >= 1, "--limit", self.limit, "a whole number from 1 on")
        if self.size("val") == 0:
            self._refuse("there is no grid to validate on", "--val-share", self.val_share)
        if self.test_share > 0 and self.size("test") == 0:
            self._refuse("there is no grid for the test", "--test-share", self.test_share)
        if self.size("train") < 1:
            got = f"{self.val_share} and --test-share {self.test_share} of {self._used:,} grids"
            do = "Pass smaller shares" + (", or a higher --limit." if self._used < self.grids else ".")
            raise SettingError("there is no grid left to train on", "--val-share", got, do)

    def roles(self, first: int, stop: int) -> NDArray[np.uint8]:
        """(stop - first,), an index into ROLES, or LEFT_OUT; DataError for grids that are not among the N."""
        _within(first, stop, self.grids)
        found = np.empty(stop - first, np.uint8)
        for number in range(first // BLOCK, -(-stop // BLOCK)):
            begin, end = max(first, number * BLOCK), min(stop, (number + 1) * BLOCK)
            found[begin - first : end - first] = _drawn(self, number)[begin - number * BLOCK : end - number * BLOCK]
        return found

    def size(self, role: Role) -> int:
        """How many grids have the role, exactly."""
        val, test = round(self.val_share * self._used), round(self.test_share * self._used)
        return {"train": self._used - val - test, "val": val, "test": test}[role]

    @property
    def _used(self) -> int:
        return self.grids if self.limit is None else min(self.limit, self.grids)

    def _refuse(self, what: str, option: str, share: float) -> None:
        if self._used == 1:
            raise SettingError(what, "--limit", "1 grid in all", "Use two grids or more.")
        # half a grid is not enough, for round() gives the even number then
        do = f"Raise {option} to {min(0.5, 1 / self._used):.2g} or more"
        higher = ", or raise --limit." if self._used < self.grids else "."
        raise SettingError(what, option, f"{share} of {self._used:,} grids", do + higher)

    def _before(self, end: int) -> NDArray[np.int64]:
        """(3,), how many of the first `end` grids have each role.

        Which grids are used is cut first, then those for validation from them, then those for the test from the rest:
        so no block gets more than it has grids, as three roundings of their own might give it.
        """
        used = self._used * end // self.grids
        val = self.size("val") * used // self._used
        rest = self._used - self.size("val")
        test = self.size("test") * (used - val) // rest
        return np.array([used - val - test, val, test])


@lru_cache(maxsize=64)
def _drawn(split: SeededSplit, number: int) -> NDArray[np.uint8]:
    """(n,), the roles of the grids of one block, not to be written to."""
    begin, end = number * BLOCK, min(split.grids, (number + 1) * BLOCK)
    quotas = split._before(end) - split._before(begin)
    # a block that is visited again is drawn again, so only the grids that are not like most of it are drawn
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
    """The split that the data come with: each shard is of one role."""

    ends: tuple[int, ...]
    """Where each shard ends among the grids of all."""
    shards: tuple[Role, ...]
    """The role of each shard, in the order of their grids."""

    def roles(self, first: int, stop: int) -> NDArray[np.uint8]:
        """(stop - first,), an index into ROLES; DataError for grids that are in no shard."""
        _within(first, stop, self.ends[-1])
        found = np.empty(stop - first, np.uint8)
        at = first
        while at < stop:
            number = bisect_right(self.ends, at)
            end = min(stop, self.ends[number])
            found[at - first : end - first] = ROLES.index(self.shards[number])
            at = end
        return found

    def size(self, role: Role) -> int:
        """How many grids have the role."""
        begins = (0, *self.ends[:-1])
        parts = zip(begins, self.ends, self.shards, strict=True)
        return sum(end - begin for begin, end, found in parts if found == role)


def named_split(locations: Sequence[Location]) -> NamedSplit:
    """The split of the datasets for training, validation and, where there is a third, the test.

    It is of the grids that `Grids(locations)` has, whose order is not that of the roles. DataError as `open_grids`.
    """
    shards = find_shards(list(locations))
    lengths = []
    for shard in shards:
        with open_grids(shard) as dataset:
            lengths.append(int(dataset.shape[0]))
    roles = tuple(ROLES[list(locations).index(shard)] for shard in shards)
    return NamedSplit(tuple(accumulate(lengths)), roles)


def _within(first: int, stop: int, grids: int) -> None:
    if not 0 <= first <= stop <= grids:
        what = "the dataset is not the one that was split"
        raise DataError(what, got=f"grids {first:,} to {stop - 1:,} of {grids:,}", do="Split it anew.")
