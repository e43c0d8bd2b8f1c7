"""Inflate a gzip chunk of HDF5, a zlib stream, with the fastest installed library."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache

Inflate = Callable[[memoryview, int], "bytes | bytearray | None"]
"""From a stream and its most inflated bytes to these bytes; None where it is damaged or longer."""


@cache
def choose_inflate() -> tuple[Inflate, str]:
    """Return the inflate function and the library's name: libdeflate with the extra `fast`, else zlib."""
    try:
        import deflate
    except ImportError:
        return _by_zlib, "zlib"

    def by_libdeflate(stream: memoryview, length: int) -> bytes | bytearray | None:
        try:
            return deflate.zlib_decompress(stream, length)
        except (deflate.DeflateError, ValueError, MemoryError):
            return None

    return by_libdeflate, "libdeflate"


def _by_zlib(stream: memoryview, length: int) -> bytes | None:
    inflating = zlib.decompressobj()
    try:
        held = inflating.decompress(stream, length)
        if not inflating.eof:  # its checksum, or more
            held += inflating.decompress(inflating.unconsumed_tail, 1)
    except zlib.error:
        return None
    return held if len(held) <= length and inflating.eof else None
