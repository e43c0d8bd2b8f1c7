"""Schemas of the cached file and the partial file, which msgspec checks when a file is read.

Unknown fields are ignored. `checked_json.convert` imports this module's classes only then: msgspec takes long to load.
"""

from __future__ import annotations

import math
from typing import Annotated

from msgspec import Meta, Struct

from ..hdf5.blocks import MAX_CLASSES
from .sources import Base

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Side = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Text = Annotated[str, Meta(max_length=1 << 16, pattern=r"\A[^\0]*\Z")]
Digest = Annotated[str, Meta(pattern=r"\A([0-9a-f]{64})?\Z")]


class SourceFields(Struct, frozen=True):
    """One file that the counts depend on, with its stamp: the values of `Stamp`, None for an absent file."""

    base: Base
    path: Text
    stamp: tuple[int, int, int, int, int, int] | None

    def __post_init__(self) -> None:
        # a time before 1970 is negative, and an inode may fill 64 bits
        if not all(-(2**63) <= value < 2**64 for value in self.stamp or ()):
            raise ValueError("a stamp has a number of more than 64 bits")


class KeyFields(Struct, frozen=True):
    """The fields of a `CacheKey`."""

    asked_dataset: Text | None
    content: Digest
    sources: Annotated[tuple[SourceFields, ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        if (self.sources[0].base, self.sources[0].path) != ("file", ""):
            raise ValueError("the first file is not the dataset's own")


class CountsFields(Struct, frozen=True):
    """The fields of a `LabelCounts`."""

    dataset: Text
    shape: tuple[Side, Side, Side]
    dtype: Text
    chunks: tuple[Side, Side, Side] | None
    filters: Annotated[tuple[Text, ...], Meta(max_length=64)]
    declared_classes: Annotated[int, Meta(ge=1, le=MAX_CLASSES)] | None
    labels: Annotated[tuple[Count, ...], Meta(max_length=MAX_CLASSES)]
    outside: Count
    outside_label: int | None

    def __post_init__(self) -> None:
        if self.outside_label is not None:
            _check_label(self.outside_label)
            if 0 <= self.outside_label < MAX_CLASSES:
                raise ValueError("the ignored label is a class")
        if sum(self.labels) + self.outside != math.prod(self.shape):
            raise ValueError("the counts are not those of all cells")
        if (self.outside_label is None) != (self.outside == 0):
            raise ValueError("the ignored label and the number of its cells do not fit")


class CheckpointFields(Struct, frozen=True):
    """The fields of a `Checkpoint`."""

    route: Text
    spans: Count
    cells: Count
    counts: Annotated[tuple[Count, ...], Meta(min_length=MAX_CLASSES, max_length=MAX_CLASSES)]
    outside: Count

    def __post_init__(self) -> None:
        if sum(self.counts) + self.outside != self.cells:
            raise ValueError("the counts are not those of its cells")


class PartialFields(Struct, frozen=True):
    """The fields of a `SavedScan`, apart from its key."""

    checkpoint: CheckpointFields
    ignore_index: int | None

    def __post_init__(self) -> None:
        if self.ignore_index is not None:
            _check_label(self.ignore_index)


def _check_label(label: int) -> None:
    if not -(2**63) <= label <= 2**64:
        raise ValueError("the ignored label has more than 64 bits")
