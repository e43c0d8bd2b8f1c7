"""Tests of the routes: each layout and dtype is counted as numpy counts it, by the expected route."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vaefit.cache import count_dataset
from vaefit.cache.errors import DataError
from vaefit.cache.scan import Checkpoint, chunk_reader, contiguous_reader, histogram, inflate, scan_dataset

hdf5plugin = pytest.importorskip("hdf5plugin")

DTYPES = ["u1", "i1", "<u2", ">i2", "<i4", ">u4", "<i8", ">i8", "<u8"]
GZIP, SHUFFLED = {"compression": "gzip"}, {"compression": "gzip", "shuffle": True}
PLUGINS = [hdf5plugin.Zstd(), hdf5plugin.Blosc(cname="zstd", shuffle=hdf5plugin.Blosc.SHUFFLE)]
FILTERS: list[dict[str, Any]] = [
    {},
    GZIP,
    SHUFFLED,
    {"shuffle": True},
    {"compression": "lzf"},
    {"compression": "gzip", "fletcher32": True},
    *(dict(plugin) for plugin in PLUGINS),
]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds so low that a few hundred cells make many spans, joins and pieces."""
    monkeypatch.setattr(contiguous_reader, "SPAN_BYTES", 512)
    monkeypatch.setattr(contiguous_reader, "READ_BYTES", 128)
    monkeypatch.setattr(chunk_reader, "SPAN_BYTES", 400)
    monkeypatch.setattr(chunk_reader, "JOINED_BYTES", 256)
    monkeypatch.setattr(histogram, "_PIECE", 256)
    monkeypatch.setattr(histogram, "_COMPARED", 5)


@pytest.fixture(params=["libdeflate", "zlib"])
def inflater(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Fixture: each library that inflates."""
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "deflate", None)
    else:
        pytest.importorskip("deflate")
    inflate.choose_inflate.cache_clear()
    yield request.param
    inflate.choose_inflate.cache_clear()


def counted(dataset: h5py.Dataset, ignore: int | None) -> tuple[list[int], int]:
    """Return the counts that numpy finds in the whole array."""
    cells = dataset[:].reshape(-1)
    outside = int(np.count_nonzero(cells == ignore)) if ignore is not None and not 0 <= ignore < 256 else 0
    inside = cells[cells != ignore] if outside else cells
    return np.bincount(inside.astype(np.int64), minlength=256).tolist(), outside


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    """A dataset: its shape, how it is stored, and what of it is written."""
    shape = tuple(draw(st.integers(1, high)) for high in (60, 9, 9))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    layout: dict[str, Any] = {"shape": shape, "dtype": dtype}
    if draw(st.booleans()):
        layout["chunks"] = tuple(draw(st.integers(1, high)) for high in (40, 9, 9))
        layout["maxshape"] = tuple(None if draw(st.booleans()) else most for most in (100, 20, 20))
        layout |= draw(st.sampled_from(FILTERS))
        layout["grown"] = draw(st.booleans())
    layout["fillvalue"] = draw(st.sampled_from([0, 0, 3, 127]))
    layout["libver"] = draw(st.sampled_from([None, "latest"]))
    layout["userblock_size"] = draw(st.sampled_from([0, 0, 0, 512]))
    written = [draw(st.booleans()) for _ in range(draw(st.integers(0, 5)))]
    layout["parts"] = [sorted(draw(st.integers(0, s)) for _ in range(2)) for s in shape for _ in written]
    layout["classes"] = draw(st.sampled_from([1, 2, 10, 100]))
    layout["share"] = draw(st.sampled_from([0.0, 0.02, 0.5, 1.0]))
    layout["ignore"] = draw(st.sampled_from([None, None, 0, 3, -100 if dtype.kind == "i" else None]))
    return layout


def write(file: Path, layout: dict[str, Any], seed: int) -> None:
    layout = dict(layout)
    rng = np.random.default_rng(seed)
    parts, classes, share, ignore = (layout.pop(key) for key in ("parts", "classes", "share", "ignore"))
    grown, shape, dtype = layout.pop("grown", False), layout["shape"], layout["dtype"]
    how = {"libver": layout.pop("libver"), "userblock_size": layout.pop("userblock_size")}
    grids = (rng.integers(0, classes, shape) * (rng.random(shape) < share)).astype(dtype)
    if ignore is not None and dtype.kind == "i":
        grids[rng.random(shape) < 0.05] = ignore
    with h5py.File(file, "w", **how) as handle:
        dataset = handle.create_dataset("grids", **layout)
        for n, y, x in zip(parts[0::3], parts[1::3], parts[2::3], strict=True):
            box = tuple(slice(low, min(high, s)) for (low, high), s in zip((n, y, x), shape, strict=True))
            if grids[box].size:
                dataset[box] = grids[box]
        if grown:
            dataset.resize((min(shape[0] + 7, 100), shape[1] + 2, max(1, shape[2] - 1)))


@pytest.mark.usefixtures("small")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layout=layouts(), seed=st.integers(0, 9), threads=st.integers(1, 3))
def test_every_layout_counts_as_numpy_does(
    tmp_path: Path, inflater: str, layout: dict[str, Any], seed: int, threads: int
) -> None:
    write(tmp_path / "grids.h5", layout, seed)
    with h5py.File(tmp_path / "grids.h5") as handle:
        ignore = layout["ignore"]
        found = scan_dataset(handle["grids"], ignore, threads)
        assert (found.counts.tolist(), found.outside) == counted(handle["grids"], ignore), found.route


def plain(handle: h5py.File, **layout: Any) -> h5py.Dataset:
    grids = np.zeros((40, 6, 6), layout.pop("dtype", "u1"))
    grids[::3, 2, 1:4] = 7
    return handle.create_dataset("grids", data=grids, **layout)


def external(handle: h5py.File) -> None:
    dataset = handle.create_dataset("grids", (40, 6, 6), "u1", external=[("grids.raw", 0, h5py.h5f.UNLIMITED)])
    dataset[...] = 5


def virtual(handle: h5py.File) -> None:
    handle["source"] = np.full((40, 6), 4, "u1")
    layout = h5py.VirtualLayout((40, 6, 6), "u1")
    layout[:, 3] = h5py.VirtualSource(handle["source"])
    handle.create_virtual_dataset("grids", layout, fillvalue=2)


def masked(handle: h5py.File) -> None:
    """Store every second chunk without its filters."""
    dataset = handle.create_dataset("grids", (40, 6, 6), "<i2", chunks=(4, 6, 6), **SHUFFLED)
    for n in range(0, 40, 4):
        cells = np.full(144, n, "<i2")
        shuffled = cells.view("u1").reshape(-1, 2).T.tobytes()
        for_mask = {0: zlib.compress(shuffled), 1: zlib.compress(cells.tobytes()), 2: shuffled, 3: cells.tobytes()}
        dataset.id.write_direct_chunk((n, 0, 0), for_mask[n // 4 % 4], n // 4 % 4)


def growing_rows(handle: h5py.File) -> None:
    """HDF5 lists the chunks of newer files that may grow along H or W alone at wrong places."""
    layout = {"shape": (40, 64, 8), "maxshape": (40, None, 8), "chunks": (10, 8, 8), "compression": "gzip"}
    handle.create_dataset("grids", dtype="u1", **layout)[:, :8] = np.arange(1, 5).repeat(10)[:, None, None]


def compact(handle: h5py.File) -> None:
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple((5, 4, 4))
    h5py.Dataset(h5py.h5d.create(handle.id, b"grids", h5py.h5t.NATIVE_UINT8, space, creation))[...] = 6


def of_twelve_bits(handle: h5py.File) -> None:
    kind = h5py.h5t.STD_I16LE.copy()
    kind.set_precision(12)
    kind.set_offset(2)
    space = h5py.h5s.create_simple((5, 4, 4))
    h5py.Dataset(h5py.h5d.create(handle.id, b"grids", kind, space))[...] = 6


def enumerated(handle: h5py.File) -> None:
    kind = h5py.enum_dtype({"BLACK": 0, "RED": 1}, basetype="u1")
    handle.create_dataset("grids", data=np.ones((5, 4, 4), "u1"), dtype=kind)


def empty_chunks(handle: h5py.File) -> None:
    handle.create_dataset("grids", (2**40, 16, 16), "u1", chunks=(32, 16, 16), compression="lzf", fillvalue=3)[7] = 1


@pytest.mark.parametrize(
    ("make", "name", "reason"),
    [
        (lambda h: plain(h), "contiguous", "one after another"),
        (lambda h: plain(h, dtype=">i4"), "contiguous", ""),
        (lambda h: plain(h, chunks=(7, 6, 6)), "chunks", "without a filter"),
        (lambda h: plain(h, chunks=(7, 6, 6), **GZIP), "chunks", "inflated by"),
        (lambda h: plain(h, chunks=(7, 4, 6), dtype=">i8", **SHUFFLED), "chunks", "inflated by"),
        (masked, "chunks", ""),
        (lambda h: plain(h, chunks=(7, 6, 6), compression="lzf"), "chunks through h5py", "lzf"),
        (lambda h: plain(h, chunks=(7, 6, 6), fletcher32=True), "chunks through h5py", "fletcher32"),
        (lambda h: plain(h, chunks=(7, 6, 6), **PLUGINS[0]), "chunks through h5py", "zstd"),
        (lambda h: plain(h, chunks=(7, 6, 6), **PLUGINS[1]), "chunks through h5py", "blosc"),
        (lambda h: h.create_dataset("grids", (9, 6, 6), "u1", fillvalue=9), "chunks", "nothing was ever written"),
        (empty_chunks, "chunks through h5py", "lzf"),
        (growing_rows, "h5py", "may grow"),
        (external, "h5py", "external"),
        (virtual, "h5py", "virtual"),
        (compact, "h5py", "metadata"),
        (of_twelve_bits, "h5py", "type of their own"),
        (enumerated, "h5py", "type of their own"),
    ],
)
def test_the_way_that_a_layout_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[h5py.File], Any], name: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with h5py.File("grids.h5", "w", libver="latest" if make is growing_rows else None) as handle:
        make(handle)
    with h5py.File("grids.h5") as handle:
        dataset = handle["grids"]
        found = scan_dataset(dataset, threads=2)
        assert found.route == name
        assert reason in found.reason
        if dataset.size < 2**20:
            assert found.counts.tolist() == counted(dataset, None)[0]
        else:
            assert found.counts[:4].tolist() == [0, 256, 0, dataset.size - 256]


def test_other_drivers_and_user_blocks_go_through_h5py(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "block.h5", "w", userblock_size=1024) as handle:
        plain(handle)
    for driver, words in ((None, "user block"), ("core", "driver core"), ("stdio", "driver stdio")):
        with h5py.File(tmp_path / "block.h5", driver=driver) as handle:
            found = scan_dataset(handle["grids"])
            assert found.route == "h5py"
            assert words in found.reason
            assert found.counts.tolist() == counted(handle["grids"], None)[0]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("layout", [{}, {"chunks": (3, 6, 6)}, {"chunks": (3, 6, 6), **GZIP}, {"chunks": (3, 3, 3)}])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_scan_goes_on_from_any_of_its_checkpoints(tmp_path: Path, layout: dict[str, Any], threads: int) -> None:
    with h5py.File(tmp_path / "grids.h5", "w") as handle:
        handle.create_dataset("grids", data=np.arange(40 * 36).reshape(40, 6, 6) % 11, dtype="u1", **layout)
    with h5py.File(tmp_path / "grids.h5") as handle:
        passed: list[Checkpoint] = []
        whole = scan_dataset(handle["grids"], threads=threads, each=lambda at, total: passed.append(at))
        assert len(passed) > 2
        assert passed[-1].cells == 40 * 36
        for at in passed:
            again = scan_dataset(handle["grids"], threads=3 - threads, resume=at)
            assert again.counts.tolist() == whole.counts.tolist()
            assert again.resumed == at.cells
        other = Checkpoint("another/5", 2, 100, (100,) + (0,) * 255, 0)
        assert scan_dataset(handle["grids"], resume=other).counts.tolist() == whole.counts.tolist()


def test_a_chunk_that_only_hdf5_understands_is_left_to_it(tmp_path: Path) -> None:
    """HDF5 does not mind bytes behind the end of a stream."""
    with h5py.File(tmp_path / "grids.h5", "w") as handle:
        dataset = handle.create_dataset("grids", (8, 6, 6), "u1", chunks=(4, 6, 6), **GZIP)
        dataset.id.write_direct_chunk((0, 0, 0), zlib.compress(bytes([2]) * 144) + b"and more")
    with h5py.File(tmp_path / "grids.h5") as handle:
        assert scan_dataset(handle["grids"]).counts[:3].tolist() == [144, 0, 144]


@pytest.mark.parametrize("layout", [{}, {"chunks": (100, 8, 8)}, {"chunks": (100, 8, 8), **GZIP}], ids=str)
@pytest.mark.usefixtures("small")
def test_a_file_cut_while_it_is_counted(tmp_path: Path, layout: dict[str, Any]) -> None:
    file = tmp_path / "cut.h5"
    with h5py.File(file, "w") as handle:
        handle.create_dataset("grids", data=np.random.default_rng(0).integers(0, 9, (1000, 8, 8)), dtype="u1", **layout)

    def cut(at: Checkpoint, total: int) -> None:
        with file.open("r+b") as stream:
            stream.truncate(file.stat().st_size // 2)

    with h5py.File(file) as handle, pytest.raises(DataError, match=r"cut\.h5:/grids.*(damaged|was cut)"):
        scan_dataset(handle["grids"], threads=1, each=cut)


def test_a_chunk_too_large_for_memory_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "huge.h5", "w") as handle:
        handle.create_dataset("grids", (2**20, 64, 64), "u1", chunks=(2**19, 64, 64), **GZIP)
    with (
        h5py.File(tmp_path / "huge.h5") as handle,
        pytest.raises(DataError, match=r"huge\.h5:/grids.*one chunk.*2,147,483,648 bytes"),
    ):
        scan_dataset(handle["grids"])


@pytest.mark.parametrize("top", [1, 13, 14, 15, 127, 128, 255])
@pytest.mark.parametrize("size", [1, 7, 8, 1000, (1 << 20) + 13])
@pytest.mark.parametrize("start", [0, 3])
def test_the_histogram_of_bytes(top: int, size: int, start: int) -> None:
    rng = np.random.default_rng(size)
    for share in (0.0, 0.03, 1.0):
        cells = (rng.integers(0, top + 1, size + start) * (rng.random(size + start) < share)).astype("u1")[start:]
        counter = histogram.Histogram(np.dtype("u1"))
        counter.add(cells)
        part = counter.take()
        assert part.counts.tolist() == np.bincount(cells, minlength=256).tolist()
        assert (part.cells, part.outside, counter.take().cells) == (size, 0, 0)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("dtype", ["u1", "<i4", "?", "<f4"])
@pytest.mark.parametrize("layout", [{}, {"compression": "gzip"}, SHUFFLED, {"compression": "lzf"}], ids=str)
def test_a_view_of_stored_chunks_counts_as_its_labels(tmp_path: Path, dtype: str, layout: dict[str, Any]) -> None:
    """Chunks have the rank and the type of the file, labels those of the view."""
    grids = (np.arange(60 * 36).reshape(60, 1, 6, 6) % 7 % 2).astype(dtype)
    with h5py.File(tmp_path / "grids.h5", "w") as handle:
        handle.create_dataset("grids", data=grids, chunks=(7, 1, 4, 6), **layout)
    for source in ("scan", "cache"):
        found = count_dataset(tmp_path / "grids.h5")
        assert (found.counts.tolist(), found.source) == (np.bincount(grids.astype(int).ravel()).tolist(), source)
