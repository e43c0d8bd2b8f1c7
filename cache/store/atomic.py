"""Atomic writes: a reader finds the old file or the new one, never half of one."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

STALE_SECONDS = 3600.0
"""A temporary file older than this belongs to a process that was killed: a write takes seconds."""


def write_atomically(path: Path, data: bytes, durable: bool = True) -> None:
    """Replace `path` with `data`; OSError where that fails, as on a full disk, and the old file stays.

    A power cut may leave a torn file unless `durable`; a kill never does.
    """
    with replacing(path, durable) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """Context manager: give a temporary path in `path`'s folder, and rename the file to `path` on success.

    Where `durable`, the file is on the disk before the rename.
    """
    # h5py and Pillow choose the format by the suffix, so it stays last
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
        with suppress(OSError):  # not every system opens a folder
            handle = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(handle)  # the rename is on the disk, too
            finally:
                os.close(handle)


def remove_stale(path: Path) -> None:
    """Delete the temporary files of killed processes in `path`'s folder, of files with the last two suffixes of `path`.

    A process looks through a folder once: of a folder of many shards that takes long.
    """
    _remove_stale(path.parent, Path(path.stem).suffix, path.suffix)


@cache
def _remove_stale(folder: Path, *suffixes: str) -> None:
    name = re.compile(r"\..+{}\.[0-9a-f]{{8}}\.tmp{}".format(*map(re.escape, suffixes)))
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if name.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    if entry.stat().st_mtime < time.time() - STALE_SECONDS:
                        Path(entry.path).unlink()
