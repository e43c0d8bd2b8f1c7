"""Datasets on which counting is measured: realistic grids in the common HDF5 layouts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from vaefit.vae.data.synthetic import SyntheticSpec, synthesise

SIDE = 16
CLASSES = 10
LABELS = 256
"""Number of labels that are counted."""
DISTINCT_GRIDS = 1 << 16
"""Larger datasets repeat these grids, too far apart for a codec to find the repetition."""
CHUNK = (4096, SIDE, SIDE)
GZIP = {"compression": "gzip", "compression_opts": 4}


@dataclass(frozen=True)
class Layout:
    """HDF5 layout of (N, 16, 16) labels."""

    name: str
    title: str
    chunks: tuple[int, int, int] | None = CHUNK
    """None is contiguous; a chunk is never longer than the dataset."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of h5py's `create_dataset`."""
    dtype: str = "uint8"
    plugin: str | None = None
    """Class of hdf5plugin that compresses the chunks."""
    slow: bool = False
    """True if reading 1,024 grids inflates as much as reading 131,072; the naive loop is then measured on a part."""

    @property
    def inflates(self) -> bool:
        """True if the chunks are zlib's, which more than one library inflates."""
        return self.options.get("compression") == "gzip"

    @property
    def plain(self) -> bool:
        """True if the cells are not compressed."""
        return not self.options and self.plugin is None

    @property
    def installed(self) -> bool:
        """True if its compressor is installed."""
        return self.plugin is None or find_spec("hdf5plugin") is not None

    def write(self, cells: NDArray[np.uint8], file: Path) -> None:
        """Write the cells as the dataset `grids` of a new file."""
        options = dict(self.options)
        if self.plugin is not None:
            import hdf5plugin

            options |= getattr(hdf5plugin, self.plugin)()
        if self.chunks is not None:
            options["chunks"] = (min(self.chunks[0], len(cells)), *self.chunks[1:])
        with h5py.File(file, "w") as handle:
            handle.create_dataset("grids", data=cells.astype(self.dtype, copy=False), **options)


LAYOUTS = (
    Layout("gzip", "gzip-4 (4096,16,16)", options=GZIP),
    Layout("gzip-columns", "gzip-4 (131072,1,1)", chunks=(131072, 1, 1), options=GZIP, slow=True),
    Layout("gzip-small", "gzip-4 (32,16,16)", chunks=(32, SIDE, SIDE), options=GZIP),
    Layout("gzip-shuffle", "gzip-4, shuffle (4096,16,16)", options={**GZIP, "shuffle": True}),
    Layout(
        "int64", "int64, gzip-4, shuffle (1024,16,16)", (1024, SIDE, SIDE), {**GZIP, "shuffle": True}, dtype="int64"
    ),
    Layout("chunked", "no compression (4096,16,16)"),
    Layout("contiguous", "contiguous", chunks=None),
    Layout("lzf", "lzf (4096,16,16)", options={"compression": "lzf"}),
    Layout("zstd", "zstd (4096,16,16)", plugin="Zstd"),
    Layout("blosc", "blosc (4096,16,16)", plugin="Blosc"),
)
BY_NAME = {layout.name: layout for layout in LAYOUTS}
QUICK = ("gzip", "gzip-columns", "int64", "contiguous")
"""Layouts that have goals."""


def make_cells(grids: int) -> NDArray[np.uint8]:
    """Return grids (N, 16, 16) like those of ARC, 93 % background; the same at each call."""
    distinct = min(DISTINCT_GRIDS, 1 << max(12, (grids - 1).bit_length()))
    return np.resize(_distinct(distinct), (grids, SIDE, SIDE))


@cache
def _distinct(grids: int) -> NDArray[np.uint8]:
    """Return synthetic grids, made once for a size: their shapes take a third of a second."""
    return synthesise(SyntheticSpec(grids, SIDE, SIDE, CLASSES))


def write_repeated(cells: NDArray[np.uint8], times: int, file: Path) -> None:
    """Write a gzip-4 dataset that repeats one chunk of these cells, in constant memory."""
    with h5py.File(file, "w") as handle:
        grids = len(cells)
        dataset = handle.create_dataset("grids", (times * grids, SIDE, SIDE), "uint8", chunks=cells.shape, **GZIP)
        dataset[:grids] = cells
        _, stored = dataset.id.read_direct_chunk((0, 0, 0))
        for number in range(1, times):
            dataset.id.write_direct_chunk((number * grids, 0, 0), stored)
