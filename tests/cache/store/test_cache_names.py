"""The names of cached files: one for each dataset, whatever datasets, files and folders are called."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaefit.cache import Location, count_dataset, count_shards
from vaefit.cache.store.counts_file import places

Write = Callable[..., Path]
ONE, TWO = np.zeros((2, 3, 3), "u1"), np.ones((2, 3, 3), "u1")


pytestmark = pytest.mark.usefixtures("user_folder")


@pytest.fixture
def twins(tmp_path: Path, write_dataset: Write) -> tuple[Path, Path]:
    """Two files of one name, in two folders, with other cells."""
    for name in ("d1", "d2"):
        (tmp_path / name).mkdir()
    return write_dataset(tmp_path / "d1" / "x.h5", grids=ONE), write_dataset(tmp_path / "d2" / "x.h5", grids=TWO)


@given(st.lists(st.text("ab./%2E5", min_size=1, max_size=9), min_size=2, max_size=2, unique=True))
def test_two_datasets_never_share_a_name(names: list[str]) -> None:
    one, two = (set(places(Location(Path("x.h5"), name), "chosen")) for name in names)
    assert not one & two


@pytest.mark.parametrize("length", [100, 190, 400, 3000])
def test_a_long_path_of_a_dataset_is_cached(
    tmp_path: Path, write_dataset: Write, caplog: pytest.LogCaptureFixture, length: int
) -> None:
    name = "/".join(["group" * 10] * (length // 50))
    file = write_dataset(tmp_path / "x.h5", **{f"{name}/a": ONE, f"{name}/é": TWO})
    with caplog.at_level(logging.WARNING):
        for end, counts in (("a", [18]), ("é", [0, 18])):
            first, again = (count_dataset(f"{file}:/{name}/{end}") for _ in range(2))
            assert (first.source, again.source, again.counts.tolist()) == ("scan", "cache", counts)
            assert again.cache_file is not None
            assert again.cache_file.parent == tmp_path
    assert not caplog.records


def test_files_of_one_name_never_evict_each_other(twins: tuple[Path, Path], tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    first = [count_dataset(file, cache_dir=chosen).cache_file for file in twins]
    assert first[0] == chosen / "x.h5.vaefit.json"
    assert set(first) == set(chosen.iterdir())
    for _ in range(2):
        for file, counts in zip(twins, ([18], [0, 18]), strict=True):
            found = count_dataset(file, cache_dir=chosen)
            assert (found.source, found.counts.tolist()) == ("cache", counts)
    assert count_shards(list(twins), cache_dir=chosen).source == "cache"
    assert set(first) == set(chosen.iterdir())


def test_data_that_changed_keeps_its_place(twins: tuple[Path, Path], tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    before = [count_dataset(file, cache_dir=chosen).cache_file for file in twins]
    for file in twins:
        with h5py.File(file, "r+") as handle:
            handle["grids"][0, 0, 0] = 2
    assert [count_dataset(file, cache_dir=chosen).cache_file for file in twins] == before
    assert [count_dataset(file, cache_dir=chosen).source for file in twins] == ["cache", "cache"]
    assert [count_dataset(file, cache_dir=chosen, rebuild=True).cache_file for file in twins] == before


def test_a_copy_is_answered_from_the_counts_of_the_first_and_leaves_them(
    twins: tuple[Path, Path], tmp_path: Path
) -> None:
    chosen = tmp_path / "chosen"
    original = count_dataset(twins[0], cache_dir=chosen).cache_file
    assert original is not None
    written = original.read_bytes()
    shutil.copytree(twins[0].parent, tmp_path / "copy")
    copied = count_dataset(tmp_path / "copy" / "x.h5", cache_dir=chosen)
    assert copied.source == "cache"
    assert copied.cache_file != original
    assert original.read_bytes() == written


def test_a_file_named_as_another_and_its_dataset(tmp_path: Path, write_dataset: Write) -> None:
    files = [f"{write_dataset(tmp_path / 'x.h5', bak=ONE)}:/bak", str(write_dataset(tmp_path / "x.h5.bak", grids=TWO))]
    assert [count_dataset(file).source for file in files * 2] == ["scan", "scan", "cache", "cache"]


def test_a_folder_has_one_place_by_whatever_link_it_is_named(twins: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("d1", target_is_directory=True)
    twins[0].with_name("x.h5.vaefit.json").mkdir()
    first = count_dataset(twins[0]).cache_file
    assert first is not None
    assert tmp_path / "user_cache" in first.parents
    again = count_dataset(tmp_path / "link" / "x.h5")
    assert (again.source, again.cache_file) == ("cache", first)


def test_a_dataset_whose_name_is_not_text_is_cached(tmp_path: Path) -> None:
    file = tmp_path / "x.h5"
    with h5py.File(file, "w") as handle:
        handle.create_dataset(b"in/g\xffx", data=TWO)
    for data in (file, f"{file}:/in/g\udcffx"):
        first, again = (count_shards(data) for _ in range(2))
        assert (first.source, again.source, again.counts.tolist()) == ("scan", "cache", [0, 18])
        assert again.shards[0].dataset == "in/g\udcffx"
    other = tmp_path / "y.h5"
    shutil.copy(file, other)
    with h5py.File(other, "r+") as handle:
        handle[b"in/g\xffx"][0] = 0
    assert len(str(count_shards([file, other]).digest)) == 64
    assert json.loads((tmp_path / "x.h5.vaefit.json").read_text())["dataset"] == "in/g\udcffx"
