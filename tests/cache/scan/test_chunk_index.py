"""Tests of damaged chunk lists, filters and addresses: the counts of an h5py read, or one clear error."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from vaefit.cache import DataError, class_counts, count_dataset
from vaefit.cache.scan.chunk_index import _BATCH, ChunkIndex

CHUNKED = {"chunks": (10, 6, 6)}
GZIP = {**CHUNKED, "compression": "gzip"}
SHUFFLED = {**GZIP, "shuffle": True}
LAYOUTS = pytest.mark.parametrize("layout", [CHUNKED, GZIP], ids=["raw", "gzip"])
UNKNOWN = 511
"""The number of a filter that nobody has."""
NOWHERE = 2**64 - 1


def labels(dtype: str = "u1") -> np.ndarray:
    """Four chunks, no two of which have equal counts."""
    grids = np.ones((40, 6, 6), dtype) * np.arange(1, 5, dtype=dtype).repeat(10)[:, None, None]
    grids[:, 0] = 0
    return grids


class Hurt:
    """A file with the dataset `grids`, of HDF5's oldest format, in which nothing has a checksum."""

    def __init__(self, file: Path, dtype: Any = "u1", **layout: Any) -> None:
        self.file = file
        with h5py.File(file, "w") as handle:
            handle.create_dataset("grids", data=labels(np.dtype(dtype).str), dtype=dtype, **layout)

    def number(self, at: int, value: int, form: str = "<Q") -> None:
        data = bytearray(self.file.read_bytes())
        struct.pack_into(form, data, at, value)
        self.file.write_bytes(data)

    def find(self, what: bytes) -> int:
        data = self.file.read_bytes()
        assert data.count(what) == 1
        return data.index(what)

    def listed(self, chunk: int, field: str, value: int) -> None:
        """Damage what the B-tree says of a chunk."""
        first = self.find(b"TREE\x01\x00") + 24
        at, form = {"size": (0, "<I"), "grid": (8, "<Q"), "row": (16, "<Q"), "address": (40, "<Q")}[field]
        self.number(first + 48 * chunk + at, value, form)

    def filter(self, name: bytes, field: str, value: int) -> None:
        """Damage what the message about the filters says of one."""
        at, form = {"id": (-8, "<H"), "values": (-2, "<H"), "value": (8, "<I")}[field]
        self.number(self.find(name.ljust(8, b"\0")) + at, value, form)

    def contiguous(self) -> int:
        """Return the place in the file of the layout's address and size of the cells."""
        with h5py.File(self.file) as handle:
            return self.find(struct.pack("<QQ", handle["grids"].id.get_offset(), 1440))


def by_h5py(file: Path) -> list[int] | None:
    """The counts of an h5py read; None where it fails, or reads labels that are none."""
    try:
        with h5py.File(file) as handle:
            cells = handle["grids"][:].reshape(-1).astype(np.int64)
    except (OSError, KeyError):
        return None
    return np.bincount(cells).tolist() if cells.max() < 1 << 16 else None


def check(file: Path, error: str | None) -> None:
    """The error, or without one the counts of an h5py read."""
    if error is not None:
        with pytest.raises(DataError, match=rf"^\S*hurt\.h5(:/grids)?: .*{error}"):
            class_counts(file, use_cache=False)
    else:
        want = by_h5py(file)
        assert want is not None
        assert class_counts(file, use_cache=False).tolist() == want


@pytest.fixture
def hurt(tmp_path: Path) -> Callable[..., Hurt]:
    """Write the file of a layout, to be damaged."""
    return lambda *how, **layout: Hurt(tmp_path / "hurt.h5", *how, **layout)


@LAYOUTS
@pytest.mark.parametrize(("chunk", "place", "named"), [(1, 0, "0, 0, 0"), (2, 10, "10, 0, 0"), (3, 10, "10, 0, 0")])
def test_a_chunk_that_is_listed_twice(hurt: Any, layout: dict[str, Any], chunk: int, place: int, named: str) -> None:
    made = hurt(**layout)
    made.listed(chunk, "grid", place)
    check(made.file, rf"damaged.*names the one at \({named}\) twice")


@LAYOUTS
def test_a_chunk_that_the_dataset_has_no_place_for(hurt: Any, layout: dict[str, Any]) -> None:
    made = hurt(**layout)
    made.listed(3, "grid", 50)
    check(made.file, r"damaged.*one at \(50, 0, 0\), where the dataset has none")


@LAYOUTS
def test_chunks_that_are_listed_out_of_order(hurt: Any, layout: dict[str, Any]) -> None:
    """HDF5 finds only some of them, and reads the others as if they were not there."""
    made = hurt(**layout)
    made.listed(0, "grid", 10)
    made.listed(1, "grid", 0)
    assert by_h5py(made.file) != np.bincount(labels().reshape(-1)).tolist()
    check(made.file, None)


@LAYOUTS
def test_a_chunk_without_an_address(hurt: Any, layout: dict[str, Any]) -> None:
    made = hurt(**layout)
    made.listed(2, "address", NOWHERE)
    assert by_h5py(made.file) == [540, 300, 300, 0, 300]
    check(made.file, None)
    assert count_dataset(made.file, use_cache=False).route == "h5py"


@LAYOUTS
@pytest.mark.parametrize("beyond", [-1, 0, 2**40, 2**63, NOWHERE - 10_000])
def test_a_chunk_beyond_the_end_of_the_file(hurt: Any, layout: dict[str, Any], beyond: int) -> None:
    made = hurt(**layout)
    size = made.file.stat().st_size
    made.listed(2, "address", size + beyond)
    check(made.file, rf"damaged.*reaches to byte .*, and the file has {size:,}\b")


@LAYOUTS
def test_a_chunk_of_more_bytes_than_the_file(hurt: Any, layout: dict[str, Any]) -> None:
    made = hurt(**layout)
    made.listed(2, "size", 2**32 - 1)
    check(made.file, r"damaged.*4,29\d,\d{3},\d{3}")


@pytest.mark.parametrize("size", [0, 100, 359, 361, 720])
@pytest.mark.parametrize("kind", ["raw", "of an enum", "shuffled", "with a checksum"])
def test_a_chunk_of_another_size_than_its_cells(hurt: Any, size: int, kind: str) -> None:
    """HDF5 would read too much, or take for cells what lies behind them in memory."""
    dtype = h5py.enum_dtype({f"L{n}": n for n in range(5)}, basetype="u1") if kind == "of an enum" else "u1"
    checksum = 4 * (kind == "with a checksum")
    made = hurt(dtype, **CHUNKED, shuffle=kind == "shuffled", fletcher32=checksum > 0)
    check(made.file, None)
    made.listed(2, "size", size + checksum)
    check(made.file, rf"damaged.*no filter made smaller takes {size + checksum} bytes, not {360 + checksum}")


@pytest.mark.parametrize("size", [0, 3])
def test_a_chunk_without_room_for_its_checksum(hurt: Any, size: int) -> None:
    """HDF5 would look for the checksum before the chunk, and crash."""
    made = hurt(**GZIP, fletcher32=True)
    check(made.file, None)
    made.listed(2, "size", size)
    check(made.file, f"damaged.*takes {size} bytes, fewer than the 4 of its checksum")


def test_a_chunk_that_leaves_out_its_checksum(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "hurt.h5", "w") as handle:
        made = handle.create_dataset("grids", data=labels(), **CHUNKED, fletcher32=True)
        made.id.write_direct_chunk((10, 0, 0), bytes([4]) * 360, 1)
    check(tmp_path / "hurt.h5", None)


@pytest.mark.parametrize("filters", [{"compression": "gzip"}, {"compression": "lzf"}], ids=["gzip", "lzf"])
@pytest.mark.parametrize("size", [359, 361])
def test_a_chunk_stored_raw_of_another_size_than_its_cells(tmp_path: Path, filters: dict[str, Any], size: int) -> None:
    with h5py.File(tmp_path / "hurt.h5", "w") as handle:
        made = handle.create_dataset("grids", data=labels(), **CHUNKED, **filters)
        made.id.write_direct_chunk((10, 0, 0), bytes([2]) * 360, 1)
    check(tmp_path / "hurt.h5", None)
    with h5py.File(tmp_path / "hurt.h5", "a") as handle:
        handle["grids"].id.write_direct_chunk((10, 0, 0), bytes([2]) * size, 1)
    check(tmp_path / "hurt.h5", rf"damaged.*no filter made smaller takes {size} bytes, not 360")


@pytest.mark.parametrize("dtype", ["u1", "<i2"])
@pytest.mark.parametrize("rest", [-2, 2], ids=["less", "more"])
def test_a_chunk_that_is_inflated_to_another_size(tmp_path: Path, dtype: str, rest: int) -> None:
    """HDF5 inflates what is too much, however much it is, and takes what lies in memory for what is missing."""
    shuffled = labels(dtype)[10:20].reshape(-1, 1).view("u1").T.tobytes()
    with h5py.File(tmp_path / "hurt.h5", "w") as handle:
        made = handle.create_dataset("grids", data=labels(dtype), **SHUFFLED)
        made.id.write_direct_chunk((10, 0, 0), zlib.compress(shuffled[:rest] if rest < 0 else shuffled + bytes(rest)))
    check(tmp_path / "hurt.h5", "damaged.*another size")


@pytest.mark.parametrize(
    ("name", "field", "value", "error"),
    [
        (b"shuffle", "value", 2, "a label above 65535"),  # HDF5 goes by it: bytes of other cells meet
        (b"shuffle", "value", 8, None),
        (b"shuffle", "value", 0, "cannot be read.*damaged"),
        (b"shuffle", "values", 0, "cannot be read.*damaged"),
        (b"shuffle", "values", 2, "cannot be read.*damaged"),
        (b"deflate", "value", 9, None),
        (b"deflate", "value", 10, "cannot be read.*damaged"),
        (b"deflate", "values", 0, "cannot be read.*damaged"),
        (b"deflate", "values", 2, "cannot be read.*damaged"),
        (b"deflate", "id", UNKNOWN, "cannot be read.*damaged"),
        (b"deflate", "id", 32000, "cannot be read.*damaged"),
    ],
)
def test_a_filter_with_odd_parameters(hurt: Any, name: bytes, field: str, value: int, error: str | None) -> None:
    made = hurt("<i4", **SHUFFLED)
    check(made.file, None)
    made.filter(name, field, value)
    assert (by_h5py(made.file) is None) == (error is not None)
    check(made.file, error)


@pytest.mark.parametrize("first", [True, False], ids=["before gzip", "after gzip"])
def test_a_filter_that_is_unknown_and_optional(tmp_path: Path, first: bool) -> None:
    """HDF5 leaves it out as it writes, and the chunks say so."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk(CHUNKED["chunks"])
    for unknown in (first, not first):
        if unknown:
            creation.set_filter(UNKNOWN, h5py.h5z.FLAG_OPTIONAL, (4, 7))
        else:
            creation.set_deflate(4)
    with h5py.File(tmp_path / "hurt.h5", "w") as handle:
        space = h5py.h5s.create_simple((40, 6, 6))
        h5py.Dataset(h5py.h5d.create(handle.id, b"grids", h5py.h5t.STD_U8LE, space, creation))[...] = labels()
    found = count_dataset(tmp_path / "hurt.h5", use_cache=False)
    assert "only h5py undoes" in found.reason
    check(tmp_path / "hurt.h5", None)


@pytest.mark.parametrize("share", [0.2, 0.7, 0.999])
def test_a_contiguous_file_that_is_cut(hurt: Any, share: float) -> None:
    made = hurt()
    whole = made.file.read_bytes()
    made.file.write_bytes(whole[: int(len(whole) * share)])
    check(made.file, "damaged")


@pytest.mark.parametrize("field", [0, 8], ids=["address", "both"])
def test_contiguous_cells_that_reach_beyond_the_end(hurt: Any, field: int) -> None:
    made = hurt()
    size = made.file.stat().st_size
    layout = made.contiguous()
    made.number(layout, size - 700)
    if field:
        made.number(layout + field, 700)
    check(made.file, "damaged")


@pytest.mark.parametrize("held", [700, 1439])
def test_contiguous_storage_that_holds_less_than_its_cells(hurt: Any, held: int) -> None:
    """HDF5 may then read other cells for a slice than for the whole."""
    made = hurt()
    made.number(made.contiguous() + 8, held)
    with h5py.File(made.file) as handle:
        grids = handle["grids"]
        slices = np.concatenate([grids[n : n + 1] for n in range(40)])
    assert np.bincount(slices.reshape(-1)).tolist() != by_h5py(made.file)
    check(made.file, f"damaged.*holds {held:,} bytes of the 1,440")


@pytest.mark.parametrize("held", [1441, 2**40])
def test_contiguous_storage_that_says_it_is_larger(hurt: Any, held: int) -> None:
    made = hurt()
    made.number(made.contiguous() + 8, held)
    check(made.file, None)


def listing(handle: h5py.File, endless: Iterator[SimpleNamespace], seen: list[int]) -> Any:
    """The dataset, of which HDF5 lists other chunks than it has."""
    dataset = handle["grids"]

    def chunk_iter(call: Callable[[Any], Any]) -> Any:
        for number, info in enumerate(endless):
            seen[:] = [number]
            if (answer := call(info)) is not None:
                return answer
        raise AssertionError

    identity = SimpleNamespace(get_create_plist=dataset.id.get_create_plist, chunk_iter=chunk_iter)
    whole = {name: getattr(dataset, name) for name in ("shape", "chunks", "dtype", "file")}
    return SimpleNamespace(**whole, id=identity)


def chunk(place: int | None) -> SimpleNamespace:
    """Return a chunk as h5py lists it, in a dataset of 2**16 chunks."""
    offset = None if place is None else (10 * place, 0, 0)
    return SimpleNamespace(chunk_offset=offset, filter_mask=0, byte_offset=None if place is None else 2048, size=360)


@pytest.mark.parametrize(
    ("endless", "error", "most"),
    [
        (lambda: map(chunk, itertools.cycle((7, 8, 9))), r"\(70, 0, 0\) twice", _BATCH),
        (lambda: map(chunk, itertools.count()), r"one at \(655360, 0, 0\), where", 2**16 + _BATCH),
        (lambda: map(chunk, itertools.cycle(range(20_000))), "twice", 100_000),
        (lambda: map(chunk, itertools.cycle(range(_BATCH))), "twice", 100_000),
        (lambda: map(chunk, itertools.repeat(None)), "more than the 65,536", 2**16 + 1),
    ],
    ids=["a short round", "on and on", "a long round", "rounds in order", "without an address"],
)
def test_a_list_of_chunks_without_end_is_left(
    tmp_path: Path, endless: Callable[[], Iterator[SimpleNamespace]], error: str, most: int
) -> None:
    with h5py.File(tmp_path / "hurt.h5", "w") as handle:
        handle.create_dataset("grids", (10 * 2**16, 6, 6), "u1", **CHUNKED)[:10] = 1
        seen: list[int] = []
        with pytest.raises(RuntimeError, match=error):
            ChunkIndex(listing(handle, endless(), seen))
        assert seen[0] < most


def test_hdf5_ends_its_list_at_an_error(hurt: Any) -> None:
    """The reader of an endless list relies on it."""
    seen: list[h5py.h5d.StoreInfo] = []

    def stop(info: h5py.h5d.StoreInfo) -> None:
        seen.append(info)
        raise RuntimeError("enough")

    with h5py.File(hurt(**CHUNKED).file) as handle:
        with pytest.raises(RuntimeError, match=r"^enough$"):
            handle["grids"].id.chunk_iter(stop)
        assert handle["grids"][0, 1, 0] == 1
    assert len(seen) == 1


def test_a_dataset_without_end_of_which_few_chunks_are_listed_out_of_order(tmp_path: Path) -> None:
    made = Hurt(tmp_path / "hurt.h5", **CHUNKED)
    with h5py.File(made.file, "w") as handle:
        grids = handle.create_dataset("grids", (10 * 2**40, 6, 6), "u1", **CHUNKED)
        grids[:20] = 1
    made.listed(0, "grid", 10)
    made.listed(1, "grid", 0)
    check(made.file, "damaged.*not in order, and names 2 of 1,099,511,627,776")
