"""Class counts of HDF5 files of every layout against numpy's, and what is said of files that cannot be counted."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from vaefit.cache import DatasetCounts, class_counts, count_dataset
from vaefit.cache.errors import DataError, SettingError

Write = Callable[[h5py.File], Any]


def make(file: Path, write: Write) -> Path:
    with h5py.File(file, "w") as handle:
        write(handle)
    return file


def count(data: str | Path, **settings: Any) -> DatasetCounts:
    return count_dataset(data, use_cache=False, **settings)


def labels(shape: tuple[int, int, int], classes: int = 10, dtype: str = "u1") -> np.ndarray:
    """About 80 % background; the largest class is in the very last cell, so that no block may be left out."""
    rng = np.random.default_rng(shape[0])
    grids = rng.integers(0, classes, shape) * (rng.random(shape) < 0.2)
    grids[-1, -1, -1] = classes - 1
    return grids.astype(dtype)


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"chunks": (7, 3, 5)},
        {"chunks": (7, 3, 5), "compression": "gzip", "shuffle": True},
        {"chunks": (1000, 1, 1)},
        {"chunks": (1, 41, 37)},
        {"chunks": True, "maxshape": (None, 41, None)},
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 41, 37), (1003, 41, 37)], ids=str)
def test_every_layout_counts_as_numpy_does(tmp_path: Path, shape: tuple[int, int, int], layout: dict[str, Any]) -> None:
    grids = labels(shape)
    layout = dict(layout)
    if isinstance(layout.get("chunks"), tuple) and "maxshape" not in layout:
        layout["maxshape"] = (None, None, None)  # chunks may then be larger than the data
    file = make(tmp_path / "grids.h5", lambda h: h.create_dataset("grids", data=grids, **layout))
    found = count(file)
    assert found.counts.dtype == np.int64
    np.testing.assert_array_equal(found.counts, np.bincount(grids.reshape(-1)))
    assert (found.shape, found.grids, found.classes, found.cells) == (shape, shape[0], 10, grids.size)
    assert (found.source, found.cache_file, found.dataset) == ("scan", None, "grids")
    np.testing.assert_array_equal(class_counts(file, use_cache=False), found.counts)


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i8", ">i2", ">u4", ">i8", "u8"])
def test_every_integer_dtype(tmp_path: Path, dtype: str) -> None:
    # odd sizes: words of eight cells leave a rest, in every row and at the end
    grids = labels((601, 13, 11), 128 if dtype == "i1" else 256, dtype)
    file = make(tmp_path / "grids.h5", lambda h: h.create_dataset("grids", data=grids, chunks=(100, 5, 11)))
    want = np.bincount(grids.reshape(-1).astype(np.int64), minlength=128 if dtype == "i1" else 256)
    np.testing.assert_array_equal(count(file).counts, want)


@pytest.mark.parametrize("chunks", [None, (1000, 1, 37), (997, 41, 5)], ids=str)
@pytest.mark.parametrize("dtype", ["u1", ">i8"])
def test_datasets_of_many_blocks(tmp_path: Path, dtype: str, chunks: tuple[int, int, int] | None) -> None:
    grids = labels((5003, 41, 37), 10, dtype)
    file = make(tmp_path / "grids.h5", lambda h: h.create_dataset("grids", data=grids, chunks=chunks))
    seen: list[tuple[int, int]] = []
    found = count(file, progress=lambda done, total: seen.append((done, total)))
    np.testing.assert_array_equal(found.counts, np.bincount(grids.reshape(-1).astype(np.int64)))
    assert seen == sorted(set(seen))
    assert seen[-1] == (grids.size, grids.size)


def test_cells_never_written_hold_the_fill_value(tmp_path: Path) -> None:
    def write(handle: h5py.File) -> None:
        grids = handle.create_dataset("grids", (20, 8, 8), "i2", chunks=(3, 3, 3), fillvalue=3)
        grids[4, 2:5, 7] = [1, 0, 6]

    assert count(make(tmp_path / "some.h5", write)).counts.tolist() == [1, 1, 0, 20 * 64 - 3, 0, 0, 1]
    file = make(tmp_path / "none.h5", lambda h: h.create_dataset("grids", (2, 3, 4), "u1", fillvalue=2))
    assert count(file).counts.tolist() == [0, 0, 24]


def test_a_dataset_is_named_or_the_only_one_of_its_kind(tmp_path: Path) -> None:
    def write(handle: h5py.File) -> None:
        handle["group/inner/grids"] = np.full((2, 3, 4), 1, "u1")
        handle["group/other"] = np.full((2, 3), 2, "u1")
        handle["floats"] = np.zeros((2, 3, 4))

    file = make(tmp_path / "with:colon.h5", write)
    for name in ("", ":/group/inner/grids", ":/group/inner/grids/"):
        found = count(f"{file}{name}")
        assert found.counts.tolist() == [0, 24]
        assert found.dataset == "group/inner/grids"
    with h5py.File(file, "a") as handle:
        handle["second"] = np.full((1, 1, 1), 3, "u1")
    assert count(f"{file}:/second").counts.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("attribute", [5, np.uint8(5), np.array([5])], ids=repr)
def test_the_number_of_classes(tmp_path: Path, attribute: Any) -> None:
    def write(handle: h5py.File) -> None:
        handle["grids"] = np.array([[[0, 2, 2]]], "u1")

    file = make(tmp_path / "grids.h5", write)
    assert count(file).counts.tolist() == [1, 0, 2]
    assert count(file, classes=256).counts.tolist() == [1, 0, 2] + [0] * 253
    with h5py.File(file, "a") as handle:
        handle["grids"].attrs["classes"] = attribute
    assert count(file).counts.tolist() == [1, 0, 2, 0, 0]
    assert count(file, classes=3).counts.tolist() == [1, 0, 2]
    assert class_counts(file, use_cache=False, classes=7).tolist() == [1, 0, 2, 0, 0, 0, 0]


@pytest.mark.usefixtures("user_folder")
@pytest.mark.parametrize("name", ["", ":/group/grids"])
def test_the_number_of_classes_of_the_dataset_else_of_its_file(tmp_path: Path, name: str) -> None:
    def write(handle: h5py.File) -> None:
        handle["group/grids"] = np.array([[[0, 2, 2]]], "u1")
        handle.attrs["classes"] = 5

    file = make(tmp_path / "grids.h5", write)
    for source in ("scan", "cache"):
        found = count_dataset(f"{file}{name}")
        assert (found.counts.tolist(), found.source) == ([1, 0, 2, 0, 0], source)
    assert count(f"{file}{name}", classes=3).counts.tolist() == [1, 0, 2]
    with h5py.File(file, "a") as handle:
        handle["group/grids"].attrs["classes"] = 4
    assert count_dataset(f"{file}{name}").counts.tolist() == [1, 0, 2, 0]
    with h5py.File(file, "a") as handle:
        del handle["group/grids"].attrs["classes"]
        handle.attrs["classes"] = "five"
    with pytest.raises(
        DataError, match=r"^\S*grids\.h5: the attribute `classes` is not a whole number from 1 to 65536"
    ):
        count_dataset(f"{file}{name}")
    assert count(f"{file}{name}", classes=3).counts.tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("dtype", "cells", "ignore", "counts"),
    [
        ("u1", [0, 2, 2, 5], 2, [1, 0, 0, 0, 0, 1]),
        ("u1", [0, 2, 2, 5], 5, [1, 0, 2]),
        ("u1", [0, 2, 2, 255], 255, [1, 0, 2]),
        ("u1", [0, 2, 2, 156], -100, [1, 0, 2] + [0] * 153 + [1]),
        ("i1", [-1, 2, -1, 0], -1, [1, 0, 1]),
        ("i2", [300, 2, 44, 0], 300, [1, 0, 1] + [0] * 41 + [1]),
        ("i8", [-(2**40), 1, 1, 0], -(2**40), [1, 2]),
        (">i2", [-100, 1, 1, 0], -100, [1, 2]),
    ],
)
def test_ignored_cells_count_nowhere(tmp_path: Path, dtype: str, cells: list[int], ignore: int, counts: list) -> None:
    file = make(tmp_path / "grids.h5", lambda h: h.create_dataset("grids", data=np.array([[cells]], dtype)))
    found = count(file, ignore_index=ignore)
    assert found.counts.tolist() == counts
    assert found.cells == sum(cell != ignore for cell in cells)


@pytest.mark.parametrize(("dtype", "low"), [("u1", 0), ("u1", 1), ("i2", 1)])
def test_memory_is_bounded(tmp_path: Path, dtype: str, low: int) -> None:
    """64 MiB of labels; with `low` 1 no cell is background, so that nothing can be skipped."""
    size = np.dtype(dtype).itemsize
    part = (np.arange(4096 * 256) % 9 + low).astype(dtype).reshape(4096, 16, 16)

    def write(handle: h5py.File) -> None:
        shape = (64 * 4096 // size, 16, 16)
        grids = handle.create_dataset("grids", shape, dtype, chunks=(4096, 16, 16), compression="gzip")
        for n in range(0, shape[0], 4096):
            grids[n : n + 4096] = part

    file = make(tmp_path / "grids.h5", write)
    tracemalloc.start()
    try:
        counts = count(file).counts
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(counts, np.bincount(part.reshape(-1)) * (64 // size))
    assert peak < 24 << 20


def bad_label(dtype: str, label: int, **layout: Any) -> Write:
    def write(handle: h5py.File) -> None:
        grids = np.ones((5000, 40, 30), dtype)
        grids[4812, 33, 7] = label
        handle.create_dataset("maps/grids", data=grids, **layout)

    return write


@pytest.mark.parametrize("layout", [{}, {"chunks": (1000, 7, 30)}, {"chunks": (997, 40, 4)}], ids=str)
@pytest.mark.parametrize(
    ("dtype", "label", "classes", "words"),
    [
        ("u1", 11, 10, "--classes 12"),
        ("u1", 255, 255, "--classes 256"),
        ("i4", 65536, None, "--ignore-index 65536"),
        ("i1", -5, None, "negative"),
        ("i2", -256, 10, "negative"),
        ("u8", 2**64 - 1, None, str(2**64 - 1)),
    ],
)
def test_a_label_outside_the_classes_is_shown_with_its_place(
    tmp_path: Path, dtype: str, label: int, classes: int | None, words: str, layout: dict[str, Any]
) -> None:
    file = make(tmp_path / "train.h5", bad_label(dtype, label, **layout))
    with pytest.raises(DataError) as caught:
        count(file, classes=classes, ignore_index=-1)
    message = str(caught.value)
    assert "train.h5:/maps/grids" in message
    assert "grid 4812, row 33, column 7" in message
    assert str(label) in message
    assert words in message


def test_an_attribute_smaller_than_the_labels_is_an_error(tmp_path: Path) -> None:
    def write(handle: h5py.File) -> None:
        handle["grids"] = np.array([[[0, 1], [4, 1]]], "u1")
        handle["grids"].attrs["classes"] = 3

    file = make(tmp_path / "grids.h5", write)
    with pytest.raises(DataError, match=r"3 classes.*grid 0, row 1, column 0.*--classes 5"):
        count(file)
    assert count(file, classes=5).counts.tolist() == [1, 2, 0, 0, 1]


@pytest.mark.parametrize("attribute", ["ten", 0, -3, 65537, 2.5, [3, 4]], ids=str)
def test_a_bad_classes_attribute_is_named(tmp_path: Path, attribute: Any) -> None:
    def write(handle: h5py.File) -> None:
        handle["grids"] = np.zeros((1, 2, 3), "u1")
        handle["grids"].attrs["classes"] = attribute

    with pytest.raises(DataError, match=r"bad\.h5:/grids.*attribute `classes`.*1 to 65536"):
        count(make(tmp_path / "bad.h5", write))


def several(handle: h5py.File) -> None:
    handle["train/a"] = np.zeros((1, 2, 3), "u1")
    handle["b"] = np.zeros((1, 2, 3), "i8")
    handle["flat"] = np.zeros((1, 2), "i8")


@pytest.mark.parametrize(
    ("write", "tail", "words"),
    [
        (lambda h: None, "", r"no dataset of integer labels.*empty"),
        (lambda h: h.create_dataset("x", data=np.zeros((2, 3))), "", r"/x.*three dimensions.*\(2, 3\)"),
        (several, "", r"2 datasets.*Name one.*x\.h5:/(b .*x\.h5:/train/a|train/a .*x\.h5:/b)\b(?!.*flat)"),
        (several, ":/c", r"x\.h5:/c.*no such dataset.*train/a"),
        (several, ":/train", r"x\.h5:/train.*group"),
        (several, ":/flat", r"x\.h5:/flat.*three dimensions.*\(1, 2\)"),
        (several, ":/", r"no dataset is named"),
        (lambda h: h.create_dataset("g", data=np.zeros((2, 3, 4, 5), "u1")), ":/g", r"three dim.*\(2, 3, 4, 5\)"),
        (lambda h: h.create_dataset("g", data=np.uint8(3)), ":/g", r"three dimensions.*\(\)"),
        (lambda h: h.create_dataset("g", data=np.full((2, 3, 4), 0.5)), ":/g", r"not a whole number.*0\.5"),
        (lambda h: h.create_dataset("g", data=np.zeros((2, 3, 4), "c8")), ":/g", r"not integers.*complex64"),
        (lambda h: h.create_dataset("g", data="text"), ":/g", r"not integers"),
        (lambda h: h.create_dataset("g", data=h5py.Empty("u1")), ":/g", r"x\.h5:/g"),
        (lambda h: h.create_dataset("g", (0, 4, 4), "u1"), "", r"x\.h5:/g.*empty.*\(0, 4, 4\)"),
        (lambda h: h.create_dataset("g", (3, 0, 4), "u1"), ":/g", r"empty.*\(3, 0, 4\)"),
    ],
)
def test_a_file_without_the_dataset_says_what_it_holds(tmp_path: Path, write: Write, tail: str, words: str) -> None:
    file = make(tmp_path / "x.h5", write)
    with pytest.raises(DataError, match=words):
        count(f"{file}{tail}")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.h5.*does not exist"):
        count(tmp_path / "nothing.h5")
    with pytest.raises(DataError, match=r"folder"):
        count(tmp_path)
    (tmp_path / "text.h5").write_text("not HDF5 at all\n" * 100)
    with pytest.raises(DataError, match=r"text\.h5.*not HDF5"):
        count(tmp_path / "text.h5")
    (tmp_path / "empty.h5").write_bytes(b"")
    with pytest.raises(DataError, match=r"empty\.h5.*not HDF5"):
        count(tmp_path / "empty.h5")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_truncated_file(tmp_path: Path, share: float) -> None:
    file = make(tmp_path / "cut.h5", lambda h: h.create_dataset("grids", data=labels((100, 9, 9)), chunks=(10, 9, 9)))
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match=r"cut\.h5.*damaged"):
        count(file)


def test_a_chunk_that_cannot_be_inflated(tmp_path: Path) -> None:
    def write(handle: h5py.File) -> None:
        handle.create_dataset("grids", data=labels((100, 9, 9)), chunks=(10, 9, 9), compression="gzip")

    file = make(tmp_path / "torn.h5", write)
    with h5py.File(file) as handle:
        chunk = handle["grids"].id.get_chunk_info(5)
    with file.open("r+b") as stream:
        stream.seek(chunk.byte_offset)
        stream.write(b"\xff" * chunk.size)
    with pytest.raises(DataError, match=r"torn\.h5:/grids.*cannot be read.*damaged"):
        count(file)


@pytest.mark.parametrize("classes", [0, -1, 65537])
def test_a_wrong_number_of_classes_is_a_wrong_setting(tmp_path: Path, classes: int) -> None:
    file = make(tmp_path / "grids.h5", lambda h: h.create_dataset("grids", data=labels((1, 2, 3))))
    with pytest.raises(SettingError, match=rf"classes.*got {classes}\).*1 to 65536"):
        count(file, classes=classes)
