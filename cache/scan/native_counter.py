"""counter.c, built by the C compiler of the machine where there is so much to count that it pays.

On grids of ten labels it counts four times as many bytes a second as numpy. Nothing is kept: each process that has use
for it builds it anew, for whoever can write to a cache could have code run otherwise.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WORTH_BUILDING = 1 << 30
"""Cells a thread: twice as many as save, at 0.23 s for 10^9, what it takes to build, 0.11 s; compilers differ."""
_FLAGS = ("-O3", "-march=native", "-shared", "-fPIC")
_LONGEST = 30.0
"""Seconds after which a compiler is given up."""

Count = Callable[[NDArray[np.uint8], NDArray[np.int64]], None]
"""Add how many of the cells, which lie one after another, hold each label to counts (256,)."""


@dataclass(frozen=True)
class ByteCounter:
    """What counts cells of one byte."""

    count: Count | None
    """None leaves it to numpy."""
    told: str
    """What it is and why, for people."""
    build_s: float | None = None
    """Seconds that the build took; None where nothing was built."""


NUMPY = ByteCounter(None, f"numpy counts: a counter is built for {WORTH_BUILDING:,} cells of one byte a thread or more")


def choose_counter(cells: int, threads: int) -> ByteCounter:
    """The fastest counter, its build included, of so many cells of one byte by so many threads."""
    return NUMPY if cells < WORTH_BUILDING * threads else build_counter()


@cache
def build_counter() -> ByteCounter:
    """counter.c; numpy where that cannot be built or loaded here, and what is in the way."""
    if sys.platform != "linux":  # the compiler of a macOS without one asks in a window whether to install it
        return _numpy("building a counter has been tried on Linux alone")
    start = time.perf_counter()
    try:
        compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
        if shutil.which(compiler[0]) is None:
            return _numpy(f"no counter is built without a C compiler, and {compiler[0]!r} is no program on the PATH")
        source = Path(__file__).with_name("counter.c")
        with tempfile.TemporaryDirectory(prefix="vaefit-") as folder:
            built = Path(folder) / "counter.so"
            command = [*compiler, *_FLAGS, str(source), "-o", str(built)]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LONGEST, errors="replace", check=False
            )
            if done.returncode != 0:
                said = next((line.strip() for line in done.stderr.splitlines() if line.strip()), "it said nothing")
                return _numpy(f"{source.name} was not built: {compiler[0]!r} ended with {done.returncode}: {said}")
            function = ctypes.CDLL(str(built)).count_cells  # stays when its file goes; a call lets other threads run
    except (OSError, ValueError, AttributeError, subprocess.SubprocessError) as error:
        return _numpy(f"counter.c was not built: {error}")
    function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p), None

    def count(cells: NDArray[np.uint8], counts: NDArray[np.int64]) -> None:
        function(cells.ctypes.data, cells.size, counts.ctypes.data)

    seconds = time.perf_counter() - start
    return ByteCounter(count, f"{source.name} counts, built in {seconds:.2f} s", seconds)


def _numpy(obstacle: str) -> ByteCounter:
    return ByteCounter(None, f"numpy counts: {obstacle}")
