"""Import of a numpy file as a dataset of grids."""

from __future__ import annotations

import io
import math
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from vaefit.cache.errors import DataError, SettingError, require_range
from vaefit.cache.hdf5.blocks import MAX_CLASSES
from vaefit.cache.hdf5.choice import Candidate, could_be_labels, name_kind
from vaefit.cache.hdf5.label_view import KINDS, dropped_axes, whole_numbers
from vaefit.cache.regular_file import open_regular

from .hdf5_writer import DatasetSpec, refuse_existing, write_blocks

MAX_HEADER = 10_000
"""Most bytes of a header, numpy's own limit."""
MAX_GRID = 1 << 30
"""Most bytes of one grid, which is read at once."""
_SAMPLED = 1 << 16
"""Most cells of an array that are looked at to choose one."""


@dataclass(frozen=True)
class NumpyImport:
    """Properties of the imported grids."""

    shape: tuple[int, int, int]
    dtype: str
    """Stored dtype: uint8 where it holds every label, else the smallest signed integer type that does."""
    smallest: int
    largest: int
    stored: StoredArray
    """The array in the file, with the axes of length 1 that were dropped."""
    passed_over: tuple[str, ...]
    """Names of the other arrays of a `.npz`, where the caller named none."""


def import_numpy(
    file: Path, out: Path, key: str | None = None, classes: int | None = None, overwrite: bool = False
) -> NumpyImport:
    """Write the labels (N, H, W) of a `.npy` or `.npz` as an HDF5 dataset, in blocks of about a million cells.

    The file is read twice, first for the range of its labels. Labels outside 0..255 are kept: one of them may be the
    label to ignore.

    Args:
        key: name of the array in a `.npz`; None takes the array that holds the labels, see `could_be_labels`.
        classes: attribute `classes` of the dataset; None writes none, so that C is the largest label + 1.

    Raises DataError, SettingError (see `NumpyGrids.find`), and RunError (see `write_blocks`).
    """
    if classes is not None:
        require_range("--classes", classes, 2, MAX_CLASSES)
    refuse_existing(out, overwrite)
    source = NumpyGrids.find(file, key)
    origin = f"{file.name}, array {source.array.name}" if source.array.name else file.name
    size = DatasetSpec(source.shape, source.array.dtype, classes, origin).chunk_grids
    ranges = [(int(block.min()), int(block.max())) for block in source.blocks(size)]
    smallest, largest = min(low for low, _ in ranges), max(high for _, high in ranges)
    dtype = _smallest_dtype(smallest, largest, file)
    converted = (block.astype(dtype) for block in source.blocks(size))
    write_blocks(out, converted, DatasetSpec(source.shape, dtype, classes, origin), overwrite)
    return NumpyImport(source.shape, str(dtype), smallest, largest, source.array, source.passed_over)


def _smallest_dtype(smallest: int, largest: int, file: Path) -> np.dtype[Any]:
    for dtype in ("uint8", "int8", "int16", "int32", "int64"):
        if np.iinfo(dtype).min <= smallest and largest <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    raise DataError("a label is beyond 64 bits", str(file), str(largest), "Store smaller labels.")


class StoredArray(NamedTuple):
    """An array in a numpy file, by its header."""

    name: str
    """Name in a `.npz`; empty in a `.npy`."""
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    offset: int
    """Bytes before its cells, in the `.npy` or in the member of the `.npz`."""


@dataclass(frozen=True)
class NumpyGrids:
    """Labels (N, H, W) of a numpy file, which are read block by block."""

    file: Path
    array: StoredArray
    shape: tuple[int, int, int]
    """The shape in the file without the axes of length 1 that labels lose."""
    passed_over: tuple[str, ...] = ()

    @classmethod
    def find(cls, file: Path, key: str | None = None) -> NumpyGrids:
        """Read the headers only; the first bytes of the file, not its name, decide between `.npy` and `.npz`.

        Raises DataError where the file is missing or damaged, or the array is missing, ambiguous, not of labels, or
        not (N, H, W); SettingError for a `key` with a `.npy`, which holds one array.
        """
        if not file.is_file():
            raise DataError("this is not a file", str(file), do="Pass a .npz or .npy file.")
        with _file_errors(file), open_regular(file) as stream:
            if not zipfile.is_zipfile(stream):
                if key is not None:
                    raise SettingError("a .npy file holds one array without a name", "--key", key, "Leave --key out.")
                stream.seek(0)
                array = read_header(stream, os.fstat(stream.fileno()).st_size)
                others: tuple[str, ...] = ()
            else:
                arrays = _headers(stream)
                array = arrays[_choose_array(file, key, arrays, stream)]
                others = tuple(name for name in arrays if name != array.name and key is None)
        where = f"{file}, array {array.name}" if array.name else str(file)
        if array.dtype.kind not in KINDS:
            got, do = f"dtype {array.dtype}, shape {array.shape}", "Store them as an integer dtype."
            raise DataError("the labels are not integers", where, got, do)
        dropped = dropped_axes(array.shape)
        shape = tuple(side for axis, side in enumerate(array.shape) if axis not in dropped)
        if len(shape) != 3 or 0 in shape:
            do = "Store one label for each cell, and at least one grid."
            if len(shape) == 4 and array.dtype.kind == "f":
                do = "If these are scores, take the argmax over the classes."
            raise DataError("grids are three dimensions, (N, H, W)", where, f"shape {array.shape}", do)
        if array.fortran and array.name:
            do = "Save it anew with numpy.ascontiguousarray."
            raise DataError("the array is stored column by column, and cannot be streamed", where, do=do)
        size = math.prod(shape[1:]) * array.dtype.itemsize
        if size > MAX_GRID:
            do = "Cut the grids into smaller ones."
            raise DataError("one grid does not fit into memory", where, f"{size:,} bytes, at most {MAX_GRID:,}", do)
        return cls(file, array, (shape[0], shape[1], shape[2]), others)

    def blocks(self, size: int) -> Iterator[NDArray[np.integer[Any]]]:
        """Yield the grids in order as integers, `size` at a time; DataError where the bytes cannot be read."""
        grids, dtype, where = self.shape[0], self.array.dtype, str(self.file)
        with _file_errors(self.file), open_regular(self.file) as stream:
            if self.array.fortran:
                stored = self.array.shape
                mapped = np.memmap(stream, dtype, "r", offset=self.array.offset, shape=stored, order="F")
                for first in range(0, grids, size):
                    block = np.ascontiguousarray(mapped[first : first + size])
                    yield whole_numbers(block.reshape(-1, *self.shape[1:]), where)
                return
            with _cells(stream, self.array) as cells:
                for first in range(0, grids, size):
                    shape = (min(size, grids - first), *self.shape[1:])
                    data = cells.read(math.prod(shape) * dtype.itemsize)
                    missing = math.prod(shape) * dtype.itemsize - len(data)
                    if missing:
                        raise EOFError(f"{missing} bytes are missing at the end")
                    yield whole_numbers(np.frombuffer(data, dtype).reshape(shape), where)
                cells.read(1)  # the end of a member: zipfile compares its checksum


_DAMAGED = (
    zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError, OverflowError, TypeError,
    LookupError, struct.error,
)  # fmt: skip
"""Errors of zipfile and numpy for a truncated, foreign or encrypted file."""


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
        got = str(error).partition("\n")[0]
        raise DataError("the file is not a numpy file, or it is damaged", str(file), got, do) from error


def read_header(stream: IO[bytes], size: int, name: str = "") -> StoredArray:
    """Read the header of the array in a stream of `size` bytes; nothing is unpickled.

    Raises ValueError for a header that cannot be read, and EOFError where the array is longer or shorter than the rest.
    """
    version = npy_format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the npy format holds structured arrays")
    length = stream.read(2 if version == (1, 0) else 4)
    if int.from_bytes(length, "little") > MAX_HEADER:
        raise ValueError(f"its header has {int.from_bytes(length, 'little'):,} bytes, at most {MAX_HEADER:,} are read")
    header = io.BytesIO(length + stream.read(int.from_bytes(length, "little")))
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            shape, fortran, dtype = read(header)
        except Exception as error:  # the header is parsed as Python, whose errors are many
            raise ValueError("its header cannot be read") from error
    if any(type(side) is not int or side < 0 for side in shape):
        raise ValueError(f"its header has the shape {shape}")
    offset = npy_format.MAGIC_LEN + len(header.getvalue())
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not read")
    more = size - offset - math.prod(shape) * dtype.itemsize
    if more:
        raise EOFError(f"{-more} bytes are missing at the end" if more < 0 else f"{more} bytes follow the array")
    return StoredArray(name, shape, fortran, dtype, offset)


def array_from_bytes(data: bytes) -> NDArray[Any]:
    """Return the array of a `.npy`; ValueError and EOFError as `read_header`, and ValueError for objects."""
    array = read_header(io.BytesIO(data), len(data))
    order: Literal["C", "F"] = "F" if array.fortran else "C"
    found: NDArray[Any] = np.ndarray(array.shape, array.dtype, data, array.offset, order=order)
    return found


def _headers(stream: IO[bytes]) -> dict[str, StoredArray]:
    """Return the arrays of a `.npz` by their names."""
    found = {}
    with zipfile.ZipFile(stream) as archive:
        for member in archive.infolist():
            if member.filename.endswith(".npy"):
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise NotImplementedError(f"numpy does not compress by the method {member.compress_type}")
                name = member.filename.removesuffix(".npy")
                with archive.open(member) as array:
                    found[name] = read_header(array, member.file_size, name)
    return found


@contextmanager
def _cells(stream: IO[bytes], array: StoredArray) -> Iterator[IO[bytes]]:
    """Give the stream of an array's cells, from the first."""
    if not array.name:
        stream.seek(array.offset)
        yield stream
        return
    with zipfile.ZipFile(stream) as archive, archive.open(f"{array.name}.npy") as member:
        member.read(array.offset)
        yield member


def _choose_array(file: Path, key: str | None, arrays: Mapping[str, StoredArray], stream: IO[bytes]) -> str:
    """Return the name of the array: `key` or, without it, that of the labels."""
    listing = ", ".join(f"{array.name} {array.shape} {array.dtype}" for array in arrays.values()) or "nothing"
    if key is not None:
        if key not in arrays:
            raise DataError("there is no such array", f"{file}, --key {key}", do=f"The file holds: {listing}.")
        return key

    def values(name: str) -> int:
        with _cells(stream, arrays[name]) as cells:
            dtype = arrays[name].dtype
            data = cells.read(min(_SAMPLED, math.prod(arrays[name].shape)) * dtype.itemsize)
            return int(np.unique(np.frombuffer(data, dtype)).size)

    candidates = [Candidate(a.name, a.shape, a.dtype, name_kind(a.name)) for a in arrays.values()]
    found = could_be_labels(candidates, values)
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} arrays could be the labels" if found else "no array of integers (N, H, W) is in the file"
    raise DataError(what, str(file), got=listing, do="Name one with --key.")
