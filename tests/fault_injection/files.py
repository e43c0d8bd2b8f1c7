"""Small datasets of every layout that HDF5 has, to be damaged."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

SHAPE = (61, 12, 10)
CHUNKS = (7, 5, 10)
"""Neither N nor H is a multiple, so that there are edge chunks."""
MAIN = "main.h5"
"""The file that is opened; other files of a layout lie beside it and are named relative to the working folder."""
DATASET = "grids"

Write = Callable[[], None]
"""Writes a layout's files into the working folder."""


def layouts() -> dict[str, Write]:
    """Name to writer, in an order that stays; filters of hdf5plugin are among them where that is installed."""
    found: dict[str, Write] = {
        "contiguous": _plain(),
        "contiguous, i4": _plain("i4"),
        "compact": _compact,
        "chunked": _plain(chunks=CHUNKS),
        "gzip": _plain(chunks=CHUNKS, compression="gzip"),
        "gzip, shuffle": _plain(chunks=CHUNKS, compression="gzip", shuffle=True),
        "gzip, shuffle, i8": _plain("i8", chunks=CHUNKS, compression="gzip", shuffle=True),
        "gzip, shuffle, >i8": _plain(">i8", chunks=CHUNKS, compression="gzip", shuffle=True),
        "gzip, >i2": _plain(">i2", chunks=CHUNKS, compression="gzip"),
        "gzip, many chunks": _plain(chunks=(3, 4, 5), compression="gzip"),
        "gzip, one cell wide": _plain(chunks=(61, 1, 1), compression="gzip"),
        "gzip, classes": _with_classes,
        "gzip, some stored raw": _some_raw,
        "gzip, fletcher32": _plain(chunks=CHUNKS, compression="gzip", fletcher32=True),
        "fletcher32": _plain(chunks=CHUNKS, fletcher32=True),
        "lzf": _plain(chunks=CHUNKS, compression="lzf"),
        "scale-offset": _plain("i2", chunks=CHUNKS, scaleoffset=0),
        "fixed array": _plain(latest=True, chunks=CHUNKS, compression="gzip"),
        "fixed array, paged": _plain(latest=True, chunks=(1, 6, 1), compression="gzip", shuffle=True),
        "extensible array": _plain(latest=True, chunks=CHUNKS, compression="gzip", maxshape=(None, 12, 10)),
        "extensible array, raw": _plain("i2", latest=True, chunks=(2, 5, 10), maxshape=(None, 12, 10)),
        "B-tree 2": _plain(latest=True, chunks=CHUNKS, compression="gzip", maxshape=(None, None, None)),
        "single chunk": _plain(latest=True, chunks=SHAPE, compression="gzip"),
        "single chunk, raw": _plain(latest=True, chunks=SHAPE),
        "implicit": _implicit,
        "contiguous, latest": _plain(">u4", latest=True),
        "user block": _plain(user_block=1024, chunks=CHUNKS, compression="gzip"),
        "fill value": _sparse,
        "fill value, lzf": _sparse_lzf,
        "resized": _resized,
        "in groups": _in_groups,
        "virtual": _virtual,
        "external": _external,
    }
    if find_spec("hdf5plugin"):
        import hdf5plugin

        found["zstd"] = _plain(chunks=CHUNKS, compression=hdf5plugin.Zstd())
        found["blosc"] = _plain("i4", chunks=CHUNKS, compression=hdf5plugin.Blosc())
    return found


def labels(dtype: str = "u1", shape: tuple[int, int, int] = SHAPE) -> NDArray[Any]:
    """Ten classes, four cells in five background."""
    rng = np.random.default_rng(5)
    return (rng.integers(0, 10, shape) * (rng.random(shape) < 0.2)).astype(dtype)


def _plain(dtype: str = "u1", latest: bool = False, user_block: int | None = None, **layout: Any) -> Write:
    def write() -> None:
        libver = "latest" if latest else None
        with h5py.File(MAIN, "w", libver=libver, userblock_size=user_block) as handle:
            handle.create_dataset(DATASET, data=labels(dtype), **layout)

    return write


def _low_level(handle: h5py.File, plist: Any, dtype: str = "u1") -> h5py.Dataset:
    """A dataset with a property that h5py's own `create_dataset` does not offer."""
    space = h5py.h5s.create_simple(SHAPE)
    made = h5py.h5d.create(handle.id, DATASET.encode(), h5py.h5t.py_create(np.dtype(dtype)), space, plist)
    return h5py.Dataset(made)


def _compact() -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    with h5py.File(MAIN, "w") as handle:
        _low_level(handle, plist)[...] = labels()


def _implicit() -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk(CHUNKS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    with h5py.File(MAIN, "w", libver="latest") as handle:
        _low_level(handle, plist)[...] = labels()


def _with_classes() -> None:
    with h5py.File(MAIN, "w") as handle:
        handle.create_dataset(DATASET, data=labels(), chunks=CHUNKS, compression="gzip").attrs["classes"] = 10
        handle["notes"] = "text beside the grids"


def _some_raw() -> None:
    """Chunks that the filter mask says were left as they are, and one deflated at another level."""
    grids = labels()
    with h5py.File(MAIN, "w") as handle:
        dataset = handle.create_dataset(DATASET, data=grids, chunks=CHUNKS, compression="gzip")
        for n in (0, 14, 28):
            dataset.id.write_direct_chunk((n, 0, 0), grids[n : n + 7, :5].tobytes(), 1)
        dataset.id.write_direct_chunk((7, 5, 0), zlib.compress(grids[7:14, 5:10].tobytes(), 0))


def _sparse() -> None:
    with h5py.File(MAIN, "w") as handle:
        made = handle.create_dataset(DATASET, SHAPE, "i2", chunks=CHUNKS, compression="gzip", fillvalue=3)
        made[8:20, 2:7, 3:9] = labels("i2")[8:20, 2:7, 3:9]


def _sparse_lzf() -> None:
    with h5py.File(MAIN, "w", libver="latest") as handle:
        made = handle.create_dataset(DATASET, SHAPE, "u1", chunks=CHUNKS, compression="lzf", fillvalue=1)
        made[8:20, 2:7, 3:9] = labels()[8:20, 2:7, 3:9]


def _resized() -> None:
    """Grown once and cut once, so that the last chunks reach over the edge on every side."""
    with h5py.File(MAIN, "w") as handle:
        made = handle.create_dataset(
            DATASET, data=labels(), chunks=CHUNKS, compression="gzip", maxshape=(None, None, None), fillvalue=2
        )
        made.resize((70, 13, 17))
        made.resize((58, 13, 9))


def _in_groups() -> None:
    """The dataset behind a soft link, in a group with a B-tree of its own, with names that fill a local heap."""
    with h5py.File(MAIN, "w") as handle:
        for number in range(20):
            handle.create_group(f"group {number}")
        handle.create_dataset("group 7/inner", data=labels(), chunks=CHUNKS, compression="gzip")
        handle[DATASET] = h5py.SoftLink("/group 7/inner")


def _virtual() -> None:
    grids = labels()
    layout = h5py.VirtualLayout(SHAPE, "u1")
    for number, (start, stop) in enumerate(((0, 20), (20, 45))):  # the rest is fill value
        name = f"source{number}.h5"
        with h5py.File(name, "w") as handle:
            handle.create_dataset("part", data=grids[start:stop], chunks=CHUNKS, compression="gzip")
        layout[start:stop] = h5py.VirtualSource(name, "part", (stop - start, *SHAPE[1:]))
    with h5py.File(MAIN, "w") as handle:
        handle.create_virtual_dataset(DATASET, layout, fillvalue=4)


def _external() -> None:
    half = labels().size // 2
    with h5py.File(MAIN, "w") as handle:
        pieces = [("first.raw", 16, half), ("second.raw", 0, h5py.h5f.UNLIMITED)]
        handle.create_dataset(DATASET, data=labels(), external=pieces)


def build(folder: Path) -> dict[str, list[Path]]:
    """Write every layout into its own folder below `folder`; name to its files, the main one first."""
    start = Path.cwd()
    built: dict[str, list[Path]] = {}
    try:
        for number, (name, write) in enumerate(layouts().items()):
            place = folder / f"{number:02}"
            place.mkdir(parents=True)
            os.chdir(place)
            write()
            built[name] = sorted(place.iterdir(), key=lambda path: (path.name != MAIN, path.name))
    finally:
        os.chdir(start)
    return built
