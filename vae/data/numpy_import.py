"""From a numpy file to a dataset of grids."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from vaefit.cache.errors import DataError, SettingError, require_range
from vaefit.cache.scan.histogram import MAX_CLASSES

from .hdf5_writer import NewGrids, refuse_existing, write_blocks


@dataclass(frozen=True)
class NumpyImport:
    """What was imported."""

    shape: tuple[int, int, int]
    dtype: str
    """As stored: uint8 where that holds every label, else the smallest signed integer that does."""
    smallest: int
    largest: int


def import_numpy(
    file: Path, out: Path, key: str | None = None, classes: int | None = None, overwrite: bool = False
) -> NumpyImport:
    """Write the integer array (N, H, W) of a `.npy` or `.npz` as an HDF5 dataset, a block of about a million cells at a
    time.

    The file is read twice, first for the range of its labels. A label outside 0..255 is kept: it may be the one to
    ignore.

    Args:
        key: the array's name in a `.npz`; None takes the only one that can be grids.
        classes: the dataset's attribute `classes`; None declares nothing, so that C is the largest label + 1.

    Raises DataError, SettingError (see `NumpyGrids.find`), and RunError (see `write_blocks`).
    """
    if classes is not None:
        require_range("--classes", classes, 2, MAX_CLASSES)
    refuse_existing(out, overwrite)
    source = NumpyGrids.find(file, key)
    origin = file.name if source.key is None else f"{file.name}, array {source.key}"
    rows = NewGrids(source.shape, source.dtype, classes, origin).rows
    ends = [(int(block.min()), int(block.max())) for block in source.blocks(rows)]
    smallest, largest = min(low for low, _ in ends), max(high for _, high in ends)
    dtype = _smallest_dtype(smallest, largest, file)

    def converted() -> Iterator[NDArray[Any]]:
        for block in source.blocks(rows):
            yield block.astype(dtype)

    write_blocks(out, converted(), NewGrids(source.shape, dtype, classes, origin), overwrite)
    return NumpyImport(source.shape, str(dtype), smallest, largest)


def _smallest_dtype(smallest: int, largest: int, file: Path) -> np.dtype[Any]:
    if smallest >= 0 and largest < MAX_CLASSES:
        return np.dtype(np.uint8)
    for dtype in ("int8", "int16", "int32", "int64"):
        if np.iinfo(dtype).min <= smallest and largest <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    raise DataError("a label is beyond 64 bits", str(file), str(largest), "Store smaller labels.")


_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError)
"""What zipfile and numpy raise for a torn, foreign or encrypted file."""


@dataclass(frozen=True)
class NumpyGrids:
    """The grids (N, H, W) of a numpy file, read when they are asked for."""

    file: Path
    key: str | None
    """The array's name in a `.npz`, None in a `.npy`."""
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    fortran: bool

    @classmethod
    def find(cls, file: Path, key: str | None = None) -> NumpyGrids:
        """Look at the headers only; the kind of the file is told by its first bytes.

        Raises DataError where the file is missing or damaged, or the array is missing, ambiguous, no integers, or not
        (N, H, W); SettingError for a `key` with a `.npy`, which holds one array.
        """
        if not file.is_file():
            raise DataError("this is not a file", str(file), do="Pass a .npz or .npy file.")
        with _reading(file):
            if not zipfile.is_zipfile(file):
                if key is not None:
                    raise SettingError("a .npy file holds one array without a name", "--key", key, "Leave --key out.")
                with file.open("rb") as stream:
                    return cls._checked(file, None, *_header(stream))
            with zipfile.ZipFile(file) as archive:
                headers = {}
                for member in archive.namelist():
                    with archive.open(member) as stream:
                        headers[member.removesuffix(".npy")] = _header(stream)
        return cls._checked(file, _pick(file, key, headers), *headers[_pick(file, key, headers)])

    @classmethod
    def _checked(
        cls, file: Path, key: str | None, shape: tuple[int, ...], fortran: bool, dtype: np.dtype[Any]
    ) -> NumpyGrids:
        where = str(file) if key is None else f"{file}, array {key}"
        if dtype.kind not in "biu":
            do = "Take the argmax over the classes." if len(shape) == 4 else "Store them as an integer dtype."
            raise DataError("the labels are not integers", where, f"dtype {dtype}, shape {shape}", do)
        if len(shape) != 3 or 0 in shape:
            do = "Take the argmax over the classes." if len(shape) == 4 else "Reshape it; at least one grid is needed."
            raise DataError("grids are three dimensions, (N, H, W)", where, f"shape {shape}", do)
        if fortran and key is not None:
            do = "Save it anew with numpy.ascontiguousarray."
            raise DataError("the array is stored column by column, and cannot be streamed", where, do=do)
        return cls(file, key, (shape[0], shape[1], shape[2]), dtype, fortran)

    def blocks(self, rows: int) -> Iterator[NDArray[Any]]:
        """Yield the grids in order, `rows` at a time; DataError where the stored bytes cannot be read."""
        with _reading(self.file):
            if self.fortran:
                mapped = np.load(self.file, mmap_mode="r", allow_pickle=False)
                for first in range(0, self.shape[0], rows):
                    yield np.ascontiguousarray(mapped[first : first + rows])
                return
            with self._open() as stream:
                _header(stream)
                for first in range(0, self.shape[0], rows):
                    size = (min(rows, self.shape[0] - first), *self.shape[1:])
                    yield np.frombuffer(_exactly(stream, math.prod(size) * self.dtype.itemsize), self.dtype).reshape(
                        size
                    )

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        with ExitStack() as stack:
            if self.key is None:
                yield stack.enter_context(self.file.open("rb"))
                return
            archive = stack.enter_context(zipfile.ZipFile(self.file))
            names = {name.removesuffix(".npy"): name for name in archive.namelist()}
            yield stack.enter_context(archive.open(names[self.key]))


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except (DataError, SettingError):
        raise
    except OSError as error:
        do = "Check its permissions."
        raise DataError("the file cannot be read", str(file), error.strerror or str(error), do) from error
    except _DAMAGED as error:
        do = "Pass an array saved by numpy.save, or arrays saved by numpy.savez."
        raise DataError("the file is not a numpy file, or it is damaged", str(file), str(error), do) from error


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and dtype of the array that the stream begins with; pickled objects are never loaded."""
    version = npy_format.read_magic(stream)
    if version == (1, 0):
        return npy_format.read_array_header_1_0(stream)
    if version == (2, 0):
        return npy_format.read_array_header_2_0(stream)
    raise ValueError(f"version {version} of the npy format holds structured arrays")


def _pick(file: Path, key: str | None, headers: dict[str, tuple[tuple[int, ...], bool, np.dtype[Any]]]) -> str:
    """The array that is meant: the one named or, without a name, the only one of integers (N, H, W)."""
    listing = ", ".join(f"{name} {shape} {dtype}" for name, (shape, _, dtype) in headers.items()) or "nothing"
    if key is not None:
        if key not in headers:
            raise DataError("there is no such array", f"{file}, --key {key}", do=f"The file holds: {listing}.")
        return key
    grids = [name for name, (shape, _, dtype) in headers.items() if len(shape) == 3 and dtype.kind in "biu"]
    if len(grids) == 1:
        return grids[0]
    if len(headers) == 1:
        return next(iter(headers))  # the reason why it will not do is better than "none"
    what = f"{len(grids)} arrays could be the grids" if grids else "no array of integers (N, H, W) is in the file"
    raise DataError(what, str(file), got=listing, do="Name one with --key.")


def _exactly(stream: IO[bytes], size: int) -> bytes:
    parts = []
    while size > 0:
        part = stream.read(size)
        if not part:
            raise EOFError(f"{size} bytes are missing at the end")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
