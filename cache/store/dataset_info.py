"""The description of a dataset that is cached with its counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ..errors import DataError
from ..hdf5.blocks import MAX_LABELS, Count, Unwritten
from ..location import Location
from .checked_json import Text

if TYPE_CHECKING:  # a cached answer needs no HDF5
    import h5py

    from ..scan import Scan

Side = Annotated[int, Meta(ge=1, le=2**63 - 1)]


@dataclass(frozen=True)
class Description:
    """A described dataset, before its labels are counted."""

    label_counts: partial[LabelCounts]
    """The description, which takes the counts."""
    holder: Path
    """The file that holds the dataset, once links are followed."""
    doubt: str | None
    """Why its counts should not be cached; None where they may be."""

    @classmethod
    def from_dataset(cls, dataset: h5py.Dataset, location: Location, classes: int | None) -> Description:
        """Describe an open dataset; DataError for a wrong attribute `classes` where no `classes` take its place."""
        from ..hdf5.dataset import (
            damage_named,
            dataset_path,
            declared_classes,
            declared_ignore,
            passed_over,
            stored_shape,
        )
        from ..hdf5.filters import filters

        doubt = None
        with damage_named(location):
            try:
                declared = declared_classes(dataset)
            except DataError:
                if classes is None:
                    raise
                declared, doubt = None, "its attribute `classes` is wrong"
            ignored = declared_ignore(dataset)
            label_counts = partial(
                LabelCounts,
                dataset=dataset_path(dataset),
                shape=dataset.shape,
                dtype=str(dataset.dtype),
                chunks=dataset.chunks,
                filters=filters(dataset),
                declared_classes=declared,
                declared_ignore=ignored and ignored[0],
                ignore_attribute=ignored and ignored[1],
                stored_shape=stored_shape(dataset),
                passed_over=passed_over(dataset, location),
            )
            return cls(label_counts, Path(dataset.file.filename).resolve(), doubt)

    def ignored(self, ignore_index: int | None) -> int | None:
        """Return the label to ignore: the caller's, else the one that an attribute declares."""
        declared: int | None = self.label_counts.keywords["declared_ignore"]
        return declared if ignore_index is None else ignore_index

    def counted(self, scan: Scan, counts: NDArray[np.int64], outside: int, ignore_index: int | None) -> LabelCounts:
        """Return the description with counts of the labels from 0 and the number of cells with a label outside them."""
        used = int(np.flatnonzero(counts).max(initial=-1)) + 1
        label = self.ignored(ignore_index) if outside else None
        return self.label_counts(
            unwritten=scan.unwritten, labels=tuple(counts[:used].tolist()), outside=outside, outside_label=label
        )


@dataclass(frozen=True)
class LabelCounts:
    """Counts of every label of one dataset, and how the dataset is stored."""

    dataset: Text
    shape: tuple[Side, Side, Side]
    dtype: Text
    chunks: tuple[Side, Side, Side] | None
    filters: Annotated[tuple[Text, ...], Meta(max_length=64)]
    declared_classes: Annotated[int, Meta(ge=1, le=MAX_LABELS)] | None
    declared_ignore: int | None
    """The label that an attribute declares as ignored."""
    ignore_attribute: Text | None
    """The name of that attribute."""
    stored_shape: Annotated[tuple[Side, ...], Meta(min_length=3, max_length=32)]
    """The shape in the file, with the axes of length 1 that were dropped."""
    passed_over: Annotated[tuple[Text, ...], Meta(max_length=64)]
    """Paths of the file's other datasets, where the caller named none."""
    unwritten: Unwritten | None
    labels: Annotated[tuple[Count, ...], Meta(max_length=MAX_LABELS)]
    """Counts of the labels 0, 1, ... up to the largest that occurs."""
    outside: Count
    """Cells with the ignored label, where that is outside 0..65535."""
    outside_label: int | None

    def __post_init__(self) -> None:
        filled = None if self.unwritten is None else self.unwritten.label
        for label in (self.outside_label, self.declared_ignore, filled):
            if label is not None:
                check_label(label)
        if self.outside_label is not None and 0 <= self.outside_label < MAX_LABELS:
            raise ValueError("the ignored label is a class")
        if sum(self.labels) + self.outside != math.prod(self.shape):
            raise ValueError("the counts are not those of all cells")
        if (self.outside_label is None) != (self.outside == 0):
            raise ValueError("the ignored label and the number of its cells do not fit")

    def serves(self, ignore_index: int | None) -> bool:
        """True where the counts hold for this ignored label too: no cell was excluded for another one."""
        return self.outside_label is None or self.outside_label == self.ignored(ignore_index)

    def ignored(self, ignore_index: int | None) -> int | None:
        """Return the label to ignore: the caller's, else the one that an attribute declares."""
        return self.declared_ignore if ignore_index is None else ignore_index


def check_label(label: int) -> None:
    """Raise ValueError for an ignored label of more than 64 bits."""
    if not -(2**63) <= label <= 2**64:
        raise ValueError("the ignored label has more than 64 bits")
