"""Filters of a dataset's chunks: their names, the plugins that bring them, and the error where one is missing."""

from __future__ import annotations

import zlib
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import DataError

if TYPE_CHECKING:  # a cached answer needs no HDF5
    import h5py

_PLUGINS = {
    307: "bzip2", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp", 32015: "zstd", 32017: "sz",
    32018: "fcidecomp", 32024: "sz3", 32026: "blosc2", 32028: "sperr", 32033: "htj2k",
}  # fmt: skip
"""Number and name of the filters that hdf5plugin brings."""


def filters(dataset: h5py.Dataset) -> tuple[str, ...]:
    """Return the filters of its chunks, such as `deflate 4`, in the order of writing."""
    return tuple(" ".join([name, *map(str, values)]) for _, name, values in _pipeline(dataset))


def load_plugins(dataset: h5py.Dataset) -> None:
    """Import hdf5plugin, which registers its filters with HDF5, if it is installed and a filter needs it."""
    if _missing(dataset):
        with suppress(ImportError, OSError):
            import hdf5plugin  # noqa: F401


def unreadable(dataset: h5py.Dataset, what: str, error: Exception) -> DataError:
    """Return the error for cells that HDF5 did not read, which names the filter that HDF5 lacks, if there is one."""
    where, missing = f"{dataset.file.filename}:{dataset.name}", _missing(dataset)
    if not missing:
        do = "The file is damaged: take another copy of it, or write it anew."
        return DataError(what, where, str(error).partition("\n")[0], do)
    code, name = missing[0]
    if code in _PLUGINS:
        do = "Run: pip install hdf5plugin (the extra `plugins`)."
    else:
        do = "Install its plugin and set HDF5_PLUGIN_PATH to the plugin's folder; or the file is damaged."
    return DataError(f"{what} without HDF5's filter {_PLUGINS.get(code, code)}", where, name, do)


def decoded_bytes(code: int, values: tuple[int, ...], stored: bytes, most: int) -> int | None:
    """Return how many bytes a filter will make of a stored chunk, by its header; of gzip, `most` + 1 if there are more.

    None for a filter whose header does not say it.
    """
    if code == 1:
        with suppress(zlib.error):
            return len(zlib.decompressobj().decompress(stored, most + 1))
    if code == 32015 and len(stored) > 5:  # a frame of zstd
        has_window, flag = not stored[4] & 0x20, stored[4] >> 6
        first, size = 5 + has_window + (0, 1, 2, 4)[stored[4] & 3], (0 if has_window else 1, 2, 4, 8)[flag]
        return int.from_bytes(stored[first : first + size], "little") + 256 * (size == 2)
    if code == 32001:
        return int.from_bytes(stored[4:8], "little")
    if code == 32004 or (code == 32008 and values[4:5] in ((2,), (3,))):  # bitshuffle alone has no header
        return int.from_bytes(stored[:8], "big")
    return int.from_bytes(stored[30:38], "big") if code == 32026 else None


def _pipeline(dataset: h5py.Dataset) -> list[tuple[int, str, tuple[int, ...]]]:
    """Return the number, name and parameters of each filter, in the order of writing."""
    plist = dataset.id.get_create_plist()
    found = (plist.get_filter(i) for i in range(plist.get_nfilters()))
    return [(code, name.decode(errors="replace"), values) for code, _, values, name in found]


def _missing(dataset: h5py.Dataset) -> list[tuple[int, str]]:
    """Return the number and the name in the file of each filter that HDF5 lacks."""
    import h5py

    return [(code, name) for code, name, _ in _pipeline(dataset) if not h5py.h5z.filter_avail(code)]
