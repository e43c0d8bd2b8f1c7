"""Import of a numpy file as a dataset of grids."""

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

from .hdf5_writer import DatasetSpec, refuse_existing, write_blocks


@dataclass(frozen=True)
class NumpyImport:
    """Properties of the imported grids."""

    shape: tuple[int, int, int]
    dtype: str
    """Stored dtype: uint8 where it holds every label, else the smallest signed integer type that does."""
    smallest: int
    largest: int


def import_numpy(
    file: Path, out: Path, key: str | None = None, classes: int | None = None, overwrite: bool = False
) -> NumpyImport:
    """Write the integer array (N, H, W) of a `.npy` or `.npz` as an HDF5 dataset, in blocks of about a million cells.

    The file is read twice, first for the range of its labels. Labels outside 0..255 are kept: one of them may be the
    label to ignore.

    Args:
        key: name of the array in a `.npz`; None takes the only array that can be grids.
        classes: attribute `classes` of the dataset; None writes none, so that C is the largest label + 1.

    Raises DataError, SettingError (see `NumpyGrids.find`), and RunError (see `write_blocks`).
    """
    if classes is not None:
        require_range("--classes", classes, 2, MAX_CLASSES)
    refuse_existing(out, overwrite)
    source = NumpyGrids.find(file, key)
    origin = file.name if source.key is None else f"{file.name}, array {source.key}"
    size = DatasetSpec(source.shape, source.dtype, classes, origin).chunk_grids
    ranges = [(int(block.min()), int(block.max())) for block in source.blocks(size)]
    smallest, largest = min(low for low, _ in ranges), max(high for _, high in ranges)
    dtype = _smallest_dtype(smallest, largest, file)
    converted = (block.astype(dtype) for block in source.blocks(size))
    write_blocks(out, converted, DatasetSpec(source.shape, dtype, classes, origin), overwrite)
    return NumpyImport(source.shape, str(dtype), smallest, largest)


def _smallest_dtype(smallest: int, largest: int, file: Path) -> np.dtype[Any]:
    for dtype in ("uint8", "int8", "int16", "int32", "int64"):
        if np.iinfo(dtype).min <= smallest and largest <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    raise DataError("a label is beyond 64 bits", str(file), str(largest), "Store smaller labels.")


_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError)
"""Errors of zipfile and numpy for a truncated, foreign or encrypted file."""


@dataclass(frozen=True)
class NumpyGrids:
    """Grids (N, H, W) of a numpy file, which are read block by block."""

    file: Path
    key: str | None
    """Name of the array in a `.npz`; None in a `.npy`."""
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    fortran: bool

    @classmethod
    def find(cls, file: Path, key: str | None = None) -> NumpyGrids:
        """Read the headers only; the first bytes of the file, not its name, decide between `.npy` and `.npz`.

        Raises DataError where the file is missing or damaged, or the array is missing, ambiguous, not of integers, or
        not (N, H, W); SettingError for a `key` with a `.npy`, which holds one array.
        """
        if not file.is_file():
            raise DataError("this is not a file", str(file), do="Pass a .npz or .npy file.")
        with _file_errors(file):
            if zipfile.is_zipfile(file):
                headers = {}
                with zipfile.ZipFile(file) as archive:
                    for member in archive.namelist():
                        with archive.open(member) as stream:
                            headers[member.removesuffix(".npy")] = _read_header(stream)
                key = _choose_array(file, key, headers)
                shape, fortran, dtype = headers[key]
            elif key is not None:
                raise SettingError("a .npy file holds one array without a name", "--key", key, "Leave --key out.")
            else:
                with file.open("rb") as stream:
                    shape, fortran, dtype = _read_header(stream)
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

    def blocks(self, size: int) -> Iterator[NDArray[Any]]:
        """Yield the grids in order, `size` at a time; DataError where the stored bytes cannot be read."""
        with _file_errors(self.file):
            if self.fortran:
                mapped = np.load(self.file, mmap_mode="r", allow_pickle=False)
                for first in range(0, self.shape[0], size):
                    yield np.ascontiguousarray(mapped[first : first + size])
                return
            with ExitStack() as stack:
                if self.key is None:
                    stream: IO[bytes] = stack.enter_context(self.file.open("rb"))
                else:
                    archive = stack.enter_context(zipfile.ZipFile(self.file))
                    names = {name.removesuffix(".npy"): name for name in archive.namelist()}
                    stream = stack.enter_context(archive.open(names[self.key]))
                _read_header(stream)
                for first in range(0, self.shape[0], size):
                    shape = (min(size, self.shape[0] - first), *self.shape[1:])
                    wanted = math.prod(shape) * self.dtype.itemsize
                    data = stream.read(wanted)
                    if len(data) < wanted:
                        raise EOFError(f"{wanted - len(data)} bytes are missing at the end")
                    yield np.frombuffer(data, self.dtype).reshape(shape)


@contextmanager
def _file_errors(file: Path) -> Iterator[None]:
    """Context manager: raise DataError for an error of the system, zipfile or numpy."""
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


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the shape, Fortran order and dtype of the array at the start of a stream; nothing is unpickled."""
    version = npy_format.read_magic(stream)
    if version == (1, 0):
        return npy_format.read_array_header_1_0(stream)
    if version == (2, 0):
        return npy_format.read_array_header_2_0(stream)
    raise ValueError(f"version {version} of the npy format holds structured arrays")


def _choose_array(file: Path, key: str | None, headers: dict[str, tuple[tuple[int, ...], bool, np.dtype[Any]]]) -> str:
    """Return the name of the array: `key` or, without it, of the only one of integers (N, H, W)."""
    listing = ", ".join(f"{name} {shape} {dtype}" for name, (shape, _, dtype) in headers.items()) or "nothing"
    if key is not None:
        if key not in headers:
            raise DataError("there is no such array", f"{file}, --key {key}", do=f"The file holds: {listing}.")
        return key
    grids = [name for name, (shape, _, dtype) in headers.items() if len(shape) == 3 and dtype.kind in "biu"]
    if len(grids) == 1:
        return grids[0]
    if len(headers) == 1:
        return next(iter(headers))  # its own error says more than "no array"
    what = f"{len(grids)} arrays could be the grids" if grids else "no array of integers (N, H, W) is in the file"
    raise DataError(what, str(file), got=listing, do="Name one with --key.")
