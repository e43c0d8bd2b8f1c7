"""Files that hold cells of a dataset and are missing, cut, or no files: an error that names them, never fill values."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from vaefit.cache import DataError, class_counts
from vaefit.cache.hdf5.grids import opened

SHAPE = (4, 8, 8)
CELLS = 256


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the datasets part0.h5 and part1.h5."""
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        write(f"part{number}.h5")
    return tmp_path


def write(file: str, name: str = "labels", shape: tuple[int, ...] = SHAPE) -> None:
    with h5py.File(file, "a") as handle:
        handle[name] = np.ones(shape, "u1")


def virtual(*sources: tuple[str, str], file: str = "all.h5", name: str = "labels") -> None:
    layout = h5py.VirtualLayout((4 * len(sources), 8, 8), "u1")
    for number, source in enumerate(sources):
        layout[4 * number : 4 * number + 4] = h5py.VirtualSource(*source, SHAPE)
    with h5py.File(file, "a") as handle:
        handle.create_virtual_dataset(name, layout)


def raw(size: int) -> None:
    Path("cells.raw").write_bytes(bytes(size))
    with h5py.File("all.h5", "w") as handle:
        handle.create_dataset("labels", SHAPE, "u1", external=[("cells.raw", 10, 100), ("cells.raw", 110, 156)])


def two_parts() -> None:
    virtual(("part0.h5", "labels"), ("part1.h5", "labels"))


def a_file() -> str:
    two_parts()
    Path("part1.h5").unlink()
    return "all.h5:/labels: its cells lie in part1.h5:/labels, which is missing (got no "


def a_dataset() -> str:
    virtual(("part0.h5", "labels"), ("part1.h5", "/group/other"))
    return f"its cells lie in part1.h5:/group/other, which is missing (got {Path.cwd()}/part1.h5 without it)"


def no_hdf5() -> str:
    two_parts()
    Path("part1.h5").write_text("something else")
    return f"(got {Path.cwd()}/part1.h5, which HDF5 does not open)"


def a_small_dataset() -> str:
    virtual(("small.h5", "labels"))
    write("small.h5", shape=(4, 8, 7))
    return "its cells lie in small.h5:/labels, which has another size (got shape (4, 8, 7), where 256 cells are needed)"


def a_part_of_a_small_dataset() -> str:
    layout = h5py.VirtualLayout(SHAPE, "u1")
    layout[:2] = h5py.VirtualSource("small.h5", "labels", SHAPE)[2:]
    with h5py.File("all.h5", "w") as handle:
        handle.create_virtual_dataset("labels", layout)
    write("small.h5", shape=(3, 8, 8))
    return "its cells lie in small.h5:/labels, which has another size (got shape (3, 8, 8), where (4, 8, 8) is needed)"


def a_source_of_a_source() -> str:
    virtual(("middle.h5", "labels"))
    virtual(("part0.h5", "labels"), ("gone.h5", "labels"), file="middle.h5")
    return "middle.h5:/labels: its cells lie in gone.h5:/labels, which is missing"


def a_raw_file_of_a_source() -> str:
    virtual(("part0.h5", "labels"), ("part1.h5", "raw"))
    with h5py.File("part1.h5", "a") as handle:
        handle.create_dataset("raw", SHAPE, "u1", external=[("gone.raw", 0, CELLS)])
    Path("gone.raw").unlink(missing_ok=True)
    return "part1.h5:/raw: its cells lie in the raw file gone.raw, which is missing"


def a_part_of_a_raw_file() -> str:
    raw(265)
    return "its cells lie in the raw file cells.raw, which is too short (got 265 bytes of 266)"


def the_target_of_a_link() -> str:
    with h5py.File("all.h5", "w") as handle:
        handle["labels"] = h5py.ExternalLink("gone.h5", "/deep/labels")
    return "all.h5:/labels: the link leads to gone.h5:/deep/labels, which is missing"


MISSING: list[Callable[[], str]] = [
    a_file, a_dataset, no_hdf5, a_small_dataset, a_part_of_a_small_dataset, a_source_of_a_source,
    a_raw_file_of_a_source, a_part_of_a_raw_file, the_target_of_a_link,
]  # fmt: skip


@pytest.mark.parametrize("missing", MISSING)
def test_what_is_missing_is_named(folder: Path, missing: Callable[[], str]) -> None:
    said = missing()
    for read in (class_counts, lambda data: opened(data).__enter__()):
        with pytest.raises(DataError, match=re.escape(said)):
            read("all.h5:/labels")
    assert not list(folder.glob("*.json")), "nothing is cached"


def test_whole_sources_are_read(folder: Path) -> None:
    two_parts()
    assert class_counts("all.h5").tolist() == [0, 2 * CELLS]
    raw(266)
    assert class_counts("all.h5").tolist() == [CELLS]


def test_a_file_that_was_renamed_may_be_its_own_source(folder: Path) -> None:
    write("v1.h5", "base")
    virtual(("v1.h5", "base"), file="./v1.h5", name="versions/1")  # h5py writes "." for an equal name
    Path("v1.h5").rename("renamed.h5")
    with pytest.raises(DataError, match=r"renamed\.h5 holds /base itself: .* v1\.h5, or a link"):
        class_counts("renamed.h5:/versions/1")
    Path("v1.h5").symlink_to("renamed.h5")
    assert class_counts("renamed.h5:/versions/1").tolist() == [0, CELLS]


def test_a_pattern_of_sources_has_no_gap(folder: Path) -> None:
    """HDF5 ends at the first file that is missing, so the last grids are silently lost."""
    create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    create.set_layout(h5py.h5d.VIRTUAL)
    unlimited = h5py.h5s.UNLIMITED
    target = h5py.h5s.create_simple((0, 8, 8), (unlimited, 8, 8))
    target.select_hyperslab((0, 0, 0), (unlimited, 1, 1), (4, 1, 1), SHAPE)
    create.set_virtual(target, b"part%b.h5", b"labels", h5py.h5s.create_simple(SHAPE))
    with h5py.File("all.h5", "w") as handle:
        whole = h5py.h5s.create_simple((0, 8, 8), (unlimited, 8, 8))
        h5py.h5d.create(handle.id, b"labels", h5py.h5t.NATIVE_UINT8, whole, create)
    assert class_counts("all.h5").tolist() == [0, 2 * CELLS]
    Path("part1.h5").rename("part3.h5")
    with pytest.raises(DataError, match=r"part1\.h5:/labels, which is missing"):
        class_counts("all.h5")
    for number in (0, 3):
        Path(f"part{number}.h5").unlink()
    with pytest.raises(DataError, match=r"part0\.h5:/labels, which is missing"):
        class_counts("all.h5")


@pytest.mark.parametrize("kind", ["virtual", "raw", "link"])
@pytest.mark.parametrize("special", ["pipe", "/dev/zero"])
def test_a_pipe_or_a_device_is_not_read(folder: Path, kind: str, special: str) -> None:
    if special == "pipe":
        special = str(folder / "pipe")
        os.mkfifo(special)
    with h5py.File("all.h5", "w") as handle:
        if kind == "raw":
            handle.create_dataset("labels", SHAPE, "u1", external=[(special, 0, CELLS)])
        elif kind == "link":
            handle["labels"] = h5py.ExternalLink(special, "/labels")
    if kind == "virtual":
        virtual((special, "labels"))
    with pytest.raises(DataError, match=f"{special}, which is no regular file"):
        class_counts("all.h5:/labels")
