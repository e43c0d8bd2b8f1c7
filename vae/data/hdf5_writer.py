"""Writing a dataset of grids: chunked, gzip, with classes and origin in the attributes."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from vaefit.cache.store.atomic import replacing

from ..errors import RunError

if TYPE_CHECKING:
    from typing_extensions import Buffer

CHUNK_CELLS = 1 << 20


@dataclass(frozen=True)
class NewGrids:
    """What is written: the shape (N, H, W), the dtype, the number of classes (None: not declared), and the origin."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    classes: int | None
    origin: str

    @property
    def rows(self) -> int:
        """Grids in a chunk of the file; blocks of as many are written fastest."""
        n, height, width = self.shape
        return max(1, min(n, CHUNK_CELLS // (height * width)))


def write_grids(out: Path, grids: NDArray[np.uint8], classes: int, origin: str, overwrite: bool = False) -> None:
    """Write grids (N, H, W) uint8 as `/grids` of a new HDF5 file; see `write_blocks`."""
    n, height, width = grids.shape
    write_blocks(out, [grids], NewGrids((n, height, width), grids.dtype, classes, origin), overwrite)


def write_blocks(out: Path, blocks: Iterable[NDArray[Any]], new: NewGrids, overwrite: bool = False) -> None:
    """Write blocks (n, H, W), one after another, as `/grids` of a new HDF5 file, all of it or nothing.

    Raises RunError where `out` exists and `overwrite` is False, or cannot be written.
    """
    refuse_existing(out, overwrite)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as temporary, RetryingFile(temporary, "w+") as stream:
            try:
                _write(stream, blocks, new)
            except (OSError, RuntimeError):
                stream.check()  # what HDF5 says of a file whose writes failed is not the cause
                raise
            stream.check()
    except OSError as error:
        do = "Check the permissions and the free space there."
        raise RunError("the file cannot be written", str(out), error.strerror or str(error), do) from error


def _write(stream: RetryingFile, blocks: Iterable[NDArray[Any]], new: NewGrids) -> None:
    with h5py.File(stream, "w") as file:
        chunk = (new.rows, *new.shape[1:])
        stored = file.create_dataset("grids", new.shape, new.dtype, chunks=chunk, compression="gzip")
        if new.classes is not None:
            stored.attrs["classes"] = new.classes
        stored.attrs["origin"] = new.origin
        first = 0
        for block in blocks:
            stored[first : first + len(block)] = block
            first += len(block)
            stream.check()


def refuse_existing(out: Path, overwrite: bool) -> None:
    """Raise RunError where `out` exists and may not be replaced; worth asking before the grids are made."""
    if out.is_dir():
        raise RunError("this is a folder", str(out), do="Pass the name of a file.")
    if out.exists() and not overwrite:
        raise RunError("the file exists", str(out), do="Pass --overwrite, or another name.")


class RetryingFile(io.FileIO):
    """Takes every write, and remembers the first that failed.

    HDF5 does not survive a write that fails under an open file: it brings the process down. So it is told that all is
    well, and `check` tells the caller afterwards.
    """

    failure: OSError | None = None

    def write(self, data: Buffer, /) -> int:
        """Write all of `data`; where that fails, go on behind it as if it were there."""
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view):
                done += super().write(view[done:]) or 0
        except OSError as error:
            self.failure = self.failure or error
            self.seek(len(view) - done, io.SEEK_CUR)
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        """Change the size, or remember why that failed."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return self.tell() if size is None else size

    def check(self) -> None:
        """Raise the first failure, if there was one."""
        if self.failure is not None:
            raise self.failure
