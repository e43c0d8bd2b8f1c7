"""Writing a file so that a reader finds the old one or the new one, never half of one."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STALE_SECONDS = 3600.0
"""A temporary file older than this belongs to a process that was killed: a write takes seconds."""

_NOT_BEFORE: dict[tuple[Path, tuple[str, str]], float] = {}
"""When a folder is next looked through for stale files of a kind, by `time.monotonic`."""


def write_atomically(path: Path, data: bytes, durable: bool = True) -> None:
    """Replace `path` with `data`; where the disk is full or the folder read-only, OSError, and the old file stays.

    Where not `durable`, a power cut may leave a torn file; a kill never does.
    """
    with replacing(path, durable) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """Give a new name in `path`'s folder to write to; on success it is flushed to the disk and renamed to `path`."""
    # h5py and Pillow choose by the ending, so it stays last
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        _sync_folder(path.parent)


def remove_stale(path: Path) -> None:
    """Remove what killed processes left in `path`'s folder of their attempts to write such files as `path`.

    Such files end alike, in its last two endings. To look through a folder of many files takes long: it is done seldom
    enough to take a hundredth of the time.
    """
    kind = re.escape(Path(path.stem).suffix), re.escape(path.suffix)
    now = time.monotonic()
    if now < _NOT_BEFORE.get((path.parent, kind), now):
        return
    name = re.compile(r"\..+{}\.[0-9a-f]{{8}}\.tmp{}".format(*kind))
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if name.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    if entry.stat().st_mtime < time.time() - STALE_SECONDS:
                        Path(entry.path).unlink()
    done = time.monotonic()
    _NOT_BEFORE[path.parent, kind] = done + 100 * (done - now)


def _sync_folder(folder: Path) -> None:
    """Make the rename last through a power cut, on systems that let a folder be opened."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
