"""The description of a dataset that is cached with its counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..location import Location

if TYPE_CHECKING:  # a cached answer needs no HDF5
    import h5py


@dataclass(frozen=True)
class Description:
    """A described dataset, before its labels are counted."""

    uncounted: LabelCounts
    """The description, without counts."""
    holder: Path
    """The file that holds the dataset, once links are followed."""
    doubt: str | None
    """Why its counts should not be cached; None where they may be."""

    @classmethod
    def from_dataset(cls, dataset: h5py.Dataset, location: Location, classes: int | None) -> Description:
        """Describe an open dataset; DataError for a wrong attribute `classes` where no `classes` take its place."""
        from ..hdf5.dataset import damage_named, dataset_path, declared_classes, filters

        doubt = None
        with damage_named(location):
            try:
                declared = declared_classes(dataset)
            except DataError:
                if classes is None:
                    raise
                declared, doubt = None, "its attribute `classes` is wrong"
            uncounted = LabelCounts(
                dataset=dataset_path(dataset),
                shape=dataset.shape,
                dtype=str(dataset.dtype),
                chunks=dataset.chunks,
                filters=filters(dataset),
                declared_classes=declared,
                labels=(),
            )
            return cls(uncounted, Path(dataset.file.filename).resolve(), doubt)

    def counted(self, counts: NDArray[np.int64], outside: int, ignore_index: int | None) -> LabelCounts:
        """Return the description with counts (256,) and the number of cells with a label outside 0..255."""
        used = int(np.flatnonzero(counts).max(initial=-1)) + 1
        label = ignore_index if outside else None
        return replace(self.uncounted, labels=tuple(counts[:used].tolist()), outside=outside, outside_label=label)


@dataclass(frozen=True)
class LabelCounts:
    """Counts of every label of one dataset, and how the dataset is stored."""

    dataset: str
    shape: tuple[int, int, int]
    dtype: str
    chunks: tuple[int, ...] | None
    filters: tuple[str, ...]
    declared_classes: int | None
    labels: tuple[int, ...]
    """Counts of the labels 0, 1, ... up to the largest that occurs."""
    outside: int = 0
    """Cells with the ignored label, where that is outside 0..255."""
    outside_label: int | None = None

    def serves(self, ignore_index: int | None) -> bool:
        """True where the counts hold for this ignored label too: no cell was excluded for another one."""
        return self.outside_label is None or self.outside_label == ignore_index
