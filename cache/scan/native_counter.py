"""Byte counter in C: native_counter.c, built by the machine's C compiler where a scan is long enough to pay for it.

On grids of ten labels it counts four times as many bytes a second as numpy. The library is built once a machine and
kept (see `vaefit.native_build`).
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vaefit.native_build import BuildError, Library, NativeCode, find_compiler, load_library

WORTH_BUILDING = 1 << 30
"""Cells a thread: twice as many as save, at 0.23 s for 10^9, what it takes to build, 0.11 s; compilers differ."""
_FLAGS = ("-O3", "-march=native", "-shared", "-fPIC")
_LONGEST = 30.0
"""Seconds after which the compiler is stopped."""

Count = Callable[[NDArray[np.uint8], NDArray[np.int64]], None]
"""Add how many of the cells, which lie one after another, hold each label to counts (256,)."""


@dataclass(frozen=True)
class ByteCounter:
    """The function that counts cells of one byte."""

    count: Count | None
    """None leaves it to numpy."""
    told: str
    """Name of the counter and reason for it, for people."""
    build_s: float | None = None
    """Seconds that the build took; None where nothing was built."""


NUMPY = ByteCounter(None, f"numpy counts: a counter is built for {WORTH_BUILDING:,} cells of one byte a thread or more")


def choose_counter(cells: int, threads: int) -> ByteCounter:
    """Return the fastest counter, its build included, of so many cells of one byte by so many threads."""
    return NUMPY if cells < WORTH_BUILDING * threads else build_counter()


@cache
def build_counter() -> ByteCounter:
    """Return the counter in C; numpy, with the reason, where it cannot be built or loaded here."""
    try:
        library = build()
        function = library.code.count_cells  # a call lets other threads run
    except (BuildError, AttributeError) as error:
        return ByteCounter(None, f"numpy counts: {error}")
    function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p), None

    def count(cells: NDArray[np.uint8], counts: NDArray[np.int64]) -> None:
        function(cells.ctypes.data, cells.size, counts.ctypes.data)

    how = "built earlier" if library.seconds is None else f"built in {library.seconds:.2f} s"
    not_kept = f" and not kept: {library.not_kept}" if library.not_kept else ""
    return ByteCounter(count, f"native_counter.c counts, {how}{not_kept}", library.seconds)


def build(enable: bool = False) -> Library:
    """Build the library and load it; a kept one is only loaded. `enable` also requires that it can be kept.

    Raises BuildError where that fails.
    """
    if sys.platform != "linux":  # macOS without a compiler opens a window that offers to install one
        raise BuildError("building a counter has been tried on Linux alone")
    try:
        compiler = find_compiler("CC", ("cc",))
    except ValueError as error:
        raise BuildError(f"native_counter.c was not built: CC is {os.environ['CC']!r}: {error}") from error
    if compiler is None:
        name = os.environ.get("CC", "").strip() or "cc"
        raise BuildError(f"no counter is built without a C compiler, and {name!r} is no program on the PATH")
    try:
        return load_library(
            NativeCode(Path(__file__).with_name("native_counter.c"), compiler, _FLAGS, _LONGEST), enable
        )
    except BuildError as error:
        raise BuildError(f"native_counter.c was not built: {error}") from error
