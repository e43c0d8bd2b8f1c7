"""Open HDF5 files for reading: flush this process's writers first, and share one handle between nested readers.

Importing this module does not import h5py: a cached answer needs no HDF5.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from .stamp import Stamp

if TYPE_CHECKING:
    import h5py

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, 524)
"""Error numbers of a file system without locks; Linux's NFS returns 524, which has no name."""


@dataclass
class _Handle:
    """An open file and the number of its users, the context that shares it included; the last one closes it."""

    file: h5py.File
    stamp: Stamp
    users: int = 1
    seen: set[str] = field(default_factory=set)

    def release(self) -> None:
        self.users -= 1
        if not self.users:
            self.file.close()


class _Sharing:
    """The one handle that nested readers share; of several files, the last one that was opened."""

    def __init__(self) -> None:
        self._current: _Handle | None = None
        self._lock, self._owner = threading.Lock(), threading.get_ident()

    def acquire(self, path: Path) -> _Handle | None:
        """Return the handle of a file, opened if necessary; None while another file is in use, which stays shared."""
        found = self._find(path)
        if found is None and (self._current is None or self._current.users == 1):
            self.release()
            stamp = _stamp(path)  # before the file is opened: a change in between shows at the next use
            if stamp is not None:
                found = self._current = _Handle(_open(path), stamp)
        return found

    def first_time(self, path: Path, name: str) -> bool:
        """Return False if this was called before for a dataset of the open handle."""
        found = self._find(path)
        if found is None or name in found.seen:
            return found is None
        found.seen.add(name)
        return True

    def descriptor(self, path: Path) -> int | None:
        """Return a new descriptor of the shared file for reads at an offset; None where it cannot be shared."""
        if "h5py" in sys.modules and threading.get_ident() == self._owner:
            with suppress(OSError):  # not an HDF5 file
                self.acquire(path)  # a reader of the grids follows
        with self._lock:
            found = self._find(path) if hasattr(os, "preadv") else None
            if found is None or found.file.driver != "sec2":
                return None
            return os.dup(int(found.file.id.get_vfd_handle()))

    def release(self) -> None:
        """Close the shared handle, or leave that to its last user."""
        with self._lock:
            if self._current is not None:
                self._current.release()
                self._current = None

    def _find(self, path: Path) -> _Handle | None:
        """Return the handle if it is of the file that lies at `path` now, unchanged since it was opened."""
        found, stamp = self._current, _stamp(path)
        return found if found is not None and stamp is not None and found.stamp.same_file(stamp) else None


_SHARING: ContextVar[_Sharing | None] = ContextVar("sharing", default=None)


@contextmanager
def shared_files() -> Iterator[None]:
    """Context manager: let nested `open_file` calls for the same unchanged file share one handle, closed at the end.

    Nested contexts join the outermost one. Of several files, only the last one stays open. The context belongs to the
    thread that enters it; a thread that runs in a copy of the thread's `contextvars` context may call `open_bytes`.
    """
    if _SHARING.get() is not None:
        yield
        return
    sharing = _Sharing()
    token = _SHARING.set(sharing)
    try:
        yield
    finally:
        _SHARING.reset(token)
        sharing.release()


def release_shared_file() -> None:
    """Close the file that nested readers share: the next reader sees nothing that HDF5 read of it before."""
    if (sharing := _SHARING.get()) is not None:
        sharing.release()


def first_time(path: Path, name: str) -> bool:
    """Return False for a dataset that was asked for before, while nested readers shared the handle of its file."""
    sharing = _SHARING.get()
    return sharing is None or sharing.first_time(path, name)


@contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file read-only, without a lock where its file system has none; OSError where that fails.

    The files that this process has open for writing are flushed first: the file's bytes may be read directly. Within
    `shared_files`, the handle may be one that another reader of the file opened.
    """
    flush_writers()
    sharing = _SHARING.get()
    shared = None if sharing is None else sharing.acquire(path)
    if shared is None:
        with _open(path) as handle:
            yield handle
        return
    shared.users += 1
    try:
        yield shared.file
    finally:
        shared.release()


@contextmanager
def open_bytes(path: Path) -> Iterator[Callable[[memoryview, int], int]]:
    """Give a function that reads a file's bytes at an offset into a buffer and returns their number, 0 at the end.

    Within `shared_files`, an HDF5 file that is open already is not opened again. OSError where opening fails.
    """
    with _descriptor(path) as handle:
        if hasattr(os, "preadv"):
            # HDF5 may use the same file description, so its position must stay
            yield lambda buffer, offset: os.preadv(handle, [buffer], offset)
        else:
            with open(handle, "rb", buffering=0, closefd=False) as stream:
                yield lambda buffer, offset: stream.readinto(buffer) if stream.seek(offset) == offset else 0


@contextmanager
def _descriptor(path: Path) -> Iterator[int]:
    sharing = _SHARING.get()
    shared = None if sharing is None else sharing.descriptor(path)
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)) if shared is None else shared
    try:
        yield handle
    finally:
        os.close(handle)


def flush_mappings(paths: Iterable[Path]) -> None:
    """Write to the disk what programs have changed in files through memory maps.

    A change of a page that waits to be written leaves the file's times as they are; of a written page it moves the
    ctime. A file system in memory writes no pages: there such a change never shows.
    """
    for path in paths:
        with suppress(OSError), _descriptor(path) as handle:
            _write_pages()(handle)


@cache
def _write_pages() -> Callable[[int], None]:
    """Return `sync_file_range` where the system has it, else `fsync`, which waits for the disk's journal besides."""
    try:
        call = ctypes.CDLL(None).sync_file_range
    except (AttributeError, OSError, TypeError):
        return os.fsync
    call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]

    def write(handle: int) -> None:
        # all pages: wait for those that are being written, write, and wait again
        if call(handle, 0, 0, 7) != 0:
            os.fsync(handle)

    return write


def flush_writers() -> None:
    """Flush every HDF5 file that this process has open for writing; a file without changes keeps its times."""
    if "h5py" not in sys.modules:
        return  # no file is open
    from h5py import h5f

    for handle in h5f.get_obj_ids(h5f.OBJ_ALL, h5f.OBJ_FILE):
        # another thread may have closed it by now; the writer gets the error of a full disk when it closes the file
        with suppress(OSError, RuntimeError, ValueError):
            if handle.get_intent() & h5f.ACC_RDWR:
                h5f.flush(handle)


def _open(path: Path) -> h5py.File:
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        found = re.search(r"unable to lock file, errno = (\d+)", str(error))
        if found is None or int(found[1]) not in NO_LOCKS:
            raise
        # no process can hold a lock there, as on many network file systems
        return h5py.File(path, "r", locking=False)


def _stamp(path: Path) -> Stamp | None:
    """Return the stamp of the file at a path; None where no file can be found."""
    with suppress(OSError):
        return Stamp.from_path(path)
    return None
