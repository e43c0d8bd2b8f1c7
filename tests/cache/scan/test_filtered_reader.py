"""Chunks that decode to another number of bytes than they should: an error, whatever filter made them."""

from __future__ import annotations

import math
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from vaefit.cache import DataError, class_counts, count_dataset

hdf5plugin = pytest.importorskip("hdf5plugin")

SHAPE = (8, 60, 60)
FILTERS: dict[str, dict[str, Any]] = {
    "lzf": {"compression": "lzf"},
    "lzf, shuffle, fletcher32": {"compression": "lzf", "shuffle": True, "fletcher32": True},
    "gzip, fletcher32": {"compression": "gzip", "fletcher32": True},
    "blosc": hdf5plugin.Blosc(),
    "blosc2": hdf5plugin.Blosc2(),
    "zstd": hdf5plugin.Zstd(),
    "lz4": hdf5plugin.LZ4(),
    "bitshuffle": hdf5plugin.Bitshuffle(),
    "bzip2": hdf5plugin.BZip2(),
}
KINDS = pytest.mark.parametrize("kind", FILTERS)


def with_chunk_of(file: Path, cells: int, kind: str) -> Path:
    """A dataset of four chunks, of which the second is that of another dataset, with chunks of so many cells."""
    with h5py.File(file.with_name("other.h5"), "w") as handle:
        grids = np.zeros((cells, 1, 1), "u1")
        grids[:6000:7] = 2
        other = handle.create_dataset("grids", data=grids, chunks=(cells, 1, 1), **FILTERS[kind])
        mask, chunk = other.id.read_direct_chunk((0, 0, 0))
        assert mask == 0, "it is compressed"
    with h5py.File(file, "w") as handle:
        dataset = handle.create_dataset("grids", data=np.ones(SHAPE, "u1"), chunks=(2, 60, 60), **FILTERS[kind])
        dataset.id.write_direct_chunk((2, 0, 0), chunk, mask)
    return file


@KINDS
@pytest.mark.parametrize("cells", [6000, 7199, 7201, 15000])
def test_a_chunk_of_another_size_is_an_error(tmp_path: Path, kind: str, cells: int) -> None:
    file = with_chunk_of(tmp_path / "grids.h5", cells, kind)
    with pytest.raises(DataError, match=r"grids\.h5:/grids.*(has another size|cannot be read)"):
        class_counts(file)
    assert not list(tmp_path.glob("*.json"))


@KINDS
def test_whole_chunks_are_counted_and_cached(tmp_path: Path, kind: str) -> None:
    grids = (np.arange(math.prod(SHAPE)) % 7 % 3).astype("u1").reshape(SHAPE)
    with h5py.File(tmp_path / "grids.h5", "w") as handle:  # chunks reach beyond the grids
        handle.create_dataset("grids", data=grids, chunks=(3, 50, 60), maxshape=(None,) * 3, **FILTERS[kind])
    for source in ("scan", "cache"):
        found = count_dataset(tmp_path / "grids.h5")
        assert (found.counts.tolist(), found.source) == (np.bincount(grids.ravel()).tolist(), source)


def gzip_bomb(file: Path) -> None:
    with h5py.File(file, "w") as handle:
        dataset = handle.create_dataset("grids", (4, 8, 8), "u1", chunks=(4, 8, 8), compression="gzip")
        packer = zlib.compressobj(9)
        stream = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(512)), packer.flush()])
        dataset.id.write_direct_chunk((0, 0, 0), stream)


BOMBS: dict[str, Callable[[Path], object]] = {
    "gzip": gzip_bomb,
    **{
        kind: lambda file, kind=kind: with_chunk_of(file, 1 << 29, kind)
        for kind in ("gzip, fletcher32", "blosc", "blosc2", "zstd", "lz4", "bitshuffle")
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BOMBS)
def test_a_chunk_of_half_a_gigabyte_takes_no_such_memory(tmp_path: Path, kind: str) -> None:
    BOMBS[kind](tmp_path / "grids.h5")
    script = """
import resource, sys
from vaefit.cache import DataError, class_counts
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    class_counts(sys.argv[1])
except DataError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "grids.h5")]
    said, taken = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "has another size" in said
    assert int(taken) < (100 << 10) * (1024 if sys.platform == "darwin" else 1)
