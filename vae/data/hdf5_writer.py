"""Writer of a dataset of grids in HDF5: chunked, gzip, with the attributes `classes`, `ignore_index` and `origin`."""

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
class DatasetSpec:
    """Properties of a dataset to write."""

    shape: tuple[int, int, int]
    """N, H, W."""
    dtype: np.dtype[Any]
    classes: int | None
    """None writes no attribute."""
    origin: str
    """Description of the source of the grids."""
    ignore_index: int | None = None
    """None writes no attribute."""

    @property
    def chunk_grids(self) -> int:
        """Grids in one chunk of the file; blocks of this size are written fastest."""
        n, height, width = self.shape
        return max(1, min(n, CHUNK_CELLS // (height * width)))


def write_grids(out: Path, grids: NDArray[np.uint8], classes: int, origin: str, overwrite: bool = False) -> None:
    """Write grids (N, H, W) uint8 as `/grids` of a new HDF5 file; see `write_blocks`."""
    n, height, width = grids.shape
    write_blocks(out, [grids], DatasetSpec((n, height, width), grids.dtype, classes, origin), overwrite)


def write_blocks(out: Path, blocks: Iterable[NDArray[Any]], spec: DatasetSpec, overwrite: bool = False) -> None:
    """Write blocks (n, H, W), one after another, as `/grids` of a new HDF5 file, which appears only when complete.

    Raises RunError where `out` exists and `overwrite` is False, or cannot be written.
    """
    refuse_existing(out, overwrite)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as temporary, DeferredErrorFile(temporary, "w+") as stream:
            try:
                _write(stream, blocks, spec)
            except (OSError, RuntimeError):
                stream.raise_failure()  # an error of HDF5 after a failed write hides the cause
                raise
            stream.raise_failure()
    except OSError as error:
        do = "Check the permissions and the free space there."
        raise RunError("the file cannot be written", str(out), error.strerror or str(error), do) from error


def _write(stream: DeferredErrorFile, blocks: Iterable[NDArray[Any]], spec: DatasetSpec) -> None:
    with h5py.File(stream, "w") as file:
        chunk = (spec.chunk_grids, *spec.shape[1:])
        stored = file.create_dataset("grids", spec.shape, spec.dtype, chunks=chunk, compression="gzip")
        if spec.classes is not None:
            stored.attrs["classes"] = spec.classes
        if spec.ignore_index is not None:
            stored.attrs["ignore_index"] = spec.ignore_index
        stored.attrs["origin"] = spec.origin
        first = 0
        for block in blocks:
            stored[first : first + len(block)] = block
            first += len(block)
            stream.raise_failure()


def refuse_existing(out: Path, overwrite: bool) -> None:
    """Raise RunError where `out` is a folder, or exists and `overwrite` is False; call it before the grids are made."""
    if out.is_dir():
        raise RunError("this is a folder", str(out), do="Pass the name of a file.")
    if out.exists() and not overwrite:
        raise RunError("the file exists", str(out), do="Pass --overwrite, or another name.")


class DeferredErrorFile(io.FileIO):
    """File that reports success for every write and stores the first error.

    HDF5 aborts the process if a write to an open file fails, as on a full disk. Here the write seems to succeed, and
    the caller gets the error from `raise_failure`.
    """

    failure: OSError | None = None

    def write(self, data: Buffer, /) -> int:
        """Write all of `data`; after an error, store it and move the position as if the data were written."""
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
        """Change the size; store the error where that fails."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return self.tell() if size is None else size

    def raise_failure(self) -> None:
        """Raise the first error, if there was one."""
        if self.failure is not None:
            raise self.failure
