"""Regular files from outside: opened only as such, with a limit of their size, and where asked only within a folder.

To open a named pipe would wait for ever, a device such as /dev/zero has no end, and a link in a folder from elsewhere
may lead anywhere.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"))


def open_regular(path: Path, limit: int | None = None, within: Path | None = None) -> BinaryIO:
    """Open a file for reading; OSError, whose text says why, for one that is not regular or larger than `limit` bytes.

    With `within`, links are followed as long as they do not lead out of that folder.
    """
    try:
        found = path if within is None else _inside(path, within)
        handle = os.open(found, _FLAGS)
    except ValueError as error:  # a NUL or a lone surrogate
        raise OSError(errno.EINVAL, "this is no name of a file", str(path)) from error
    try:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode):
            kind = next((name for test, name in _KINDS if test(state.st_mode)), "a device")
            raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))
        if limit is not None and state.st_size > limit:
            words = f"it has {state.st_size:,} bytes, and at most {limit:,} are read"
            raise OSError(errno.EFBIG, words, str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_regular(path: Path, limit: int, within: Path | None = None) -> bytes:
    """Return the content of a file; errors are those of `open_regular`."""
    with open_regular(path, limit, within) as stream:
        return stream.read(os.fstat(stream.fileno()).st_size)  # not beyond it: a file of /proc has no size and no end


def check_regular(path: Path, limit: int | None = None, within: Path | None = None) -> Path:
    """Return `path`, for a library that opens it by name; errors are those of `open_regular`."""
    open_regular(path, limit, within).close()
    return path


def _inside(path: Path, folder: Path) -> Path:
    """Return the path without links; OSError where it lies outside the folder."""
    found, inside = Path(os.path.realpath(path)), os.path.realpath(folder)
    if not found.is_relative_to(inside):
        raise OSError(errno.EINVAL, f"it is a link that leads out of its folder, to {found}", str(path))
    return found
