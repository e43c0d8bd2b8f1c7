"""Ways to damage a file's bytes, chosen by a random generator, so that a seed gives the same damage again."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.fault_injection.files import DATASET, MAIN
from tests.fault_injection.hdf5_checksum import reseal, sealed


@dataclass(frozen=True)
class Whole:
    """An undamaged file, and where in it damage tells."""

    path: Path
    data: bytes
    structure: list[int]
    """Positions of the bytes other than 0 that hold no cells."""
    fields: list[tuple[int, int]]
    """(position, bytes) of what may be a number of the dataset: a size, a chunk's size, a filter, an address."""
    seals: list[tuple[int, int]]
    """Structures with a checksum, see `seal.sealed`."""

    @classmethod
    def of(cls, path: Path) -> Whole:
        """Look at a file of `files`; one that is no HDF5 file has cells only."""
        data = path.read_bytes()
        if path.suffix != ".h5":
            return cls(path, data, [], [], [])
        stored, numbers = _look(path)
        cells = np.zeros(len(data), bool)
        for start, size in stored:
            cells[start : start + size] = True
        held = np.frombuffer(data, np.uint8)
        structure = np.flatnonzero(~cells & (held != 0)).tolist()
        fields = [
            (at, width)
            for at in structure
            for width in (8, 4, 2)
            if int.from_bytes(data[at : at + width], "little") in numbers and (width == 2 or data[at + width - 1] == 0)
        ]
        return cls(path, data, structure, fields, sealed(data))


Wound = Callable[[bytearray, np.random.Generator, Whole], tuple[int, int]]
"""Damages the bytes in place and returns the range that may have changed."""


def damage(whole: Whole, rng: np.random.Generator) -> tuple[bytes, str]:
    """The damaged bytes, and in words what was done to them; now and then more than one thing."""
    data, done = bytearray(whole.data), []
    for _ in range(1 + int(rng.random() < 0.2)):
        name, wound = WOUNDS[int(rng.integers(len(WOUNDS)))]
        if name == "field" and not whole.fields:
            name, wound = WOUNDS[0]
        start, end = wound(data, rng, whole)
        words = f"{name} at {start}..{end}"
        if rng.random() < 0.75:
            for first, last in _overlapping(whole.seals, start, end):
                if last + 4 <= len(data):
                    reseal(data, first, last)
                    words += ", checksum made to fit"
        done.append(words)
    return bytes(data), "; ".join(done)


def _flip(data: bytearray, rng: np.random.Generator, whole: Whole) -> tuple[int, int]:
    at = _place(data, rng, whole)
    end = min(len(data), at + int(rng.integers(1, 5)))
    for position in range(at, end):
        data[position] ^= 1 << int(rng.integers(8))
    return at, end


def _bytes(data: bytearray, rng: np.random.Generator, whole: Whole) -> tuple[int, int]:
    at = _place(data, rng, whole)
    end = min(len(data), at + int(rng.integers(1, 9)))
    data[at:end] = rng.bytes(end - at)
    return at, end


def _run(data: bytearray, rng: np.random.Generator, whole: Whole) -> tuple[int, int]:
    at = _place(data, rng, whole)
    end = min(len(data), at + int(2 ** rng.uniform(3, 9)))
    filling = [rng.bytes(end - at), b"\0" * (end - at), b"\xff" * (end - at), b"\1" * (end - at)]
    data[at:end] = filling[int(rng.integers(4))]
    return at, end


def _truncate(data: bytearray, rng: np.random.Generator, whole: Whole) -> tuple[int, int]:
    size = len(data)
    near = max(1, size - int(2 ** rng.uniform(0, 12)))
    keep = near if rng.random() < 0.5 else int(rng.integers(size)) if size else 0
    del data[keep:]
    if rng.random() < 0.3:  # as a file system does that lost the last blocks, but not the size
        data.extend(bytes(size - keep))
    return keep, size


def _zero_page(data: bytearray, rng: np.random.Generator, whole: Whole) -> tuple[int, int]:
    page = 512 << int(rng.integers(3))
    at = int(rng.integers(max(1, len(data)))) // page * page
    end = min(len(data), at + page)
    data[at:end] = bytes(end - at)
    return at, end


def _swap(data: bytearray, rng: np.random.Generator, whole: Whole) -> tuple[int, int]:
    size = 8 << int(rng.integers(7))
    first, second = _place(data, rng, whole) // 8 * 8, _place(data, rng, whole) // 8 * 8
    size = min(size, abs(first - second), len(data) - max(first, second))
    if size > 0:
        data[first : first + size], data[second : second + size] = (
            data[second : second + size], data[first : first + size],
        )  # fmt: skip
    return min(first, second), max(first, second) + max(size, 0)


def _field(data: bytearray, rng: np.random.Generator, whole: Whole) -> tuple[int, int]:
    at, width = whole.fields[int(rng.integers(len(whole.fields)))]
    value = int.from_bytes(data[at : at + width], "little")
    choices = [
        0, 1, 2, value - 1, value + 1, value * 2, value // 2, value << 16, value << 32, 2**15, 2**16 - 1, 2**20, 2**31,
        2**31 - 1, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1, int(rng.integers(2**63)), int(rng.integers(256)),
    ]  # fmt: skip
    new = max(0, choices[int(rng.integers(len(choices)))]) & (1 << 8 * width) - 1
    end = min(len(data), at + width)
    data[at:end] = new.to_bytes(width, "little")[: end - at]
    return at, end


WOUNDS: list[tuple[str, Wound]] = [
    ("bits flipped", _flip),
    ("bits flipped", _flip),
    ("bytes", _bytes),
    ("run", _run),
    ("truncation", _truncate),
    ("zeroed page", _zero_page),
    ("blocks swapped", _swap),
    ("field", _field),
    ("field", _field),
    ("field", _field),
]


def _place(data: bytearray, rng: np.random.Generator, whole: Whole) -> int:
    """Draw an offset, mostly within the structure: the cells are the larger and less dangerous part."""
    if not data:
        return 0
    if whole.structure and rng.random() < 0.55:
        at = whole.structure[int(rng.integers(len(whole.structure)))] + int(rng.integers(-1, 2))
        return min(max(at, 0), len(data) - 1)
    return int(rng.integers(len(data)))


def _overlapping(seals: list[tuple[int, int]], start: int, end: int) -> list[tuple[int, int]]:
    """The structures that were changed; where damage only swallows part of a checksum, that one stays wrong."""
    first = bisect.bisect(seals, (start, 0))
    return [seal for seal in seals[max(0, first - 1) :] if seal[0] < end and start < seal[1]]


def _look(path: Path) -> tuple[list[tuple[int, int]], set[int]]:
    """(position, bytes) of everything that holds cells, and the numbers that describe the dataset."""
    stored: list[tuple[int, int]] = []
    with h5py.File(path) as handle:
        dataset: Any = handle[DATASET] if path.name == MAIN else handle["part"]
        numbers = {*dataset.shape, dataset.dtype.itemsize, dataset.size, dataset.nbytes, 1, 2, 3, 32000}
        low = dataset.id
        if dataset.chunks is not None:
            low.chunk_iter(lambda chunk: stored.append((chunk.byte_offset, chunk.size)))
            numbers |= {*dataset.chunks, len(stored), dataset.dtype.itemsize * int(np.prod(dataset.chunks))}
        elif low.get_offset() is not None:
            stored.append((low.get_offset(), low.get_storage_size()))
        for start, size in stored:
            numbers |= {start, size}
        numbers.add(h5py.h5o.get_info(low).addr)
        base = handle.userblock_size
    numbers |= {number - base for number in list(numbers)}
    return stored, numbers
