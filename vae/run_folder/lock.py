"""Lock of a run folder: one process writes in it at a time. The lock ends with its process, however that ends."""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from vaefit.cache.hdf5.open_files import NO_LOCKS
from vaefit.cache.regular_file import read_regular

from ..errors import RunError

LOCK = ".lock"
"""Name of the file in the folder; one that a killed process left holds nobody up."""
_WAIT = 0.5
"""Seconds: a process that finds the folder taken lets go of its lock at once."""
_FLAGS = os.O_RDWR | os.O_CREAT | sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"))
_log = logging.getLogger("vaefit")


@contextmanager
def locked(folder: Path, made: Sequence[Path] = ()) -> Iterator[None]:
    """Context manager: keep other processes from writing in the folder, and remove the folders `made` that stay empty.

    RunError where another process holds the lock or the folder cannot be written, FileNotFoundError where it is gone.
    Where the file system has no locks, a warning says so.
    """
    file = folder / LOCK
    try:
        handle = _acquired(file)
    except BlockingIOError as error:
        holder, do = "", "Wait until it ends, or pass another --out."
        with suppress(OSError):
            holder = read_regular(file, 512).decode(errors="replace")
        raise RunError("another process writes in this run folder", str(folder), holder, do) from error
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError("the run folder cannot be written", str(folder), reason, "Pass another --out.") from error
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()  # while the lock is held, so that it is our own
        for empty in made:
            with suppress(OSError):
                empty.rmdir()
        os.close(handle)  # gives up the lock


def _acquired(file: Path) -> int:
    """Return the handle of the locked file; BlockingIOError where another process holds the lock."""
    until = time.monotonic() + _WAIT
    while True:
        handle = os.open(file, _FLAGS, 0o644)
        try:
            _lock(handle)
            # the file that was opened may be that of a process which has ended since, and removed it
            if os.fstat(handle).st_nlink:
                os.ftruncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return handle
        except BaseException as error:
            os.close(handle)
            if not isinstance(error, BlockingIOError) or time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            os.close(handle)


def _lock(handle: int) -> None:
    """Lock an open file; BlockingIOError where another process holds the lock."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError) as error:
        found = error.errno if isinstance(error, OSError) else errno.ENOSYS
        if found not in NO_LOCKS:
            raise
        _log.warning(f"the run folder cannot be locked ({os.strerror(found)}): let no other process write in it")
