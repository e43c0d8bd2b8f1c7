"""Tests of the handle that nested readers share, and of how often a check opens its data."""

from __future__ import annotations

import builtins
import io
import os
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from vaefit.cache import class_counts, count_dataset, weights
from vaefit.cache.hdf5.dataset import open_grids
from vaefit.cache.hdf5.grids import opened
from vaefit.cache.hdf5.open_files import open_bytes, open_file, shared_files
from vaefit.cache.location import Location
from vaefit.cache.schemes import derive_weights

pytestmark = pytest.mark.usefixtures("user_folder")


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were opened, by h5py, `open` or `os.open`, in order."""
    seen: list[str] = []

    def watch(owner: Any, name: str, first: int = 0) -> None:
        real = getattr(owner, name)

        def call(*arguments: Any, **settings: Any) -> Any:
            file = arguments[first] if len(arguments) > first else None
            if isinstance(file, (str, Path)):
                seen.append(Path(file).name)
            return real(*arguments, **settings)

        monkeypatch.setattr(owner, name, call)

    watch(h5py.File, "__init__", 1)
    watch(os, "open")
    watch(io, "open")
    watch(builtins, "open")
    return seen


@pytest.fixture
def old(dataset: Path) -> Path:
    """The small dataset, written so long ago that its times are proof."""
    time.sleep(2.1)
    return dataset


@pytest.mark.parametrize("named", [False, True], ids=["the file", "its dataset"])
@pytest.mark.parametrize("age", ["dataset", "old"], ids=["just written", "written long ago"])
def test_a_check_opens_its_data_twice_at_most_and_once_where_its_counts_are_cached(
    request: pytest.FixtureRequest,
    vaefit_cli: Callable[..., Any],
    tmp_path: Path,
    opens: list[str],
    monkeypatch: pytest.MonkeyPatch,
    age: str,
    named: bool,
) -> None:
    derived: list[int] = []
    monkeypatch.setattr(weights, "derive_weights", lambda *a: derived.append(1) or derive_weights(*a))
    file = request.getfixturevalue(age)
    data = f"{file}:/grids" if named else file
    for run, most in (("first", 2), ("cached", 1)):
        opens.clear()
        derived.clear()
        done = vaefit_cli("overfit", data, "--out", tmp_path / run, "--iterations", "1", "--batch-size", "4", "--json")
        assert done.code in (0, 1), done.err
        assert opens.count(file.name) <= most, run
        assert len(derived) == 1


@pytest.mark.parametrize("age", ["dataset", "old"], ids=["just written", "written long ago"])
def test_a_count_opens_its_file_once(request: pytest.FixtureRequest, opens: list[str], age: str) -> None:
    file = request.getfixturevalue(age)
    opens.clear()
    assert count_dataset(file).source == "scan"
    assert opens.count(file.name) == 1


def test_nested_readers_share_one_handle_until_the_end(dataset: Path, opens: list[str]) -> None:
    opens.clear()
    with shared_files():
        with open_file(dataset) as one, open_file(dataset) as two:
            assert one is two
        with shared_files(), open_grids(Location(dataset)) as grids:
            assert grids.file == one
        assert one.id.valid
        with open_bytes(dataset) as read:
            piece = memoryview(bytearray(8))
            assert (read(piece, 0), bytes(piece)) == (8, b"\x89HDF\r\n\x1a\n")
            assert read(piece, dataset.stat().st_size) == 0
    assert opens == [dataset.name]
    assert not one.id.valid
    with open_file(dataset) as alone:
        assert alone is not one


def test_an_error_closes_the_file(dataset: Path) -> None:
    with pytest.raises(KeyError), shared_files(), open_file(dataset) as handle:
        handle["absent"]
    assert not handle.id.valid


def test_a_reader_that_outlives_the_context_keeps_its_file(dataset: Path) -> None:
    with shared_files():
        reader = opened(dataset)
        grids = reader.__enter__()
    assert grids[0].shape == (8, 8)
    reader.__exit__(None, None, None)


def test_a_file_that_was_replaced_is_opened_again(tmp_path: Path, write_dataset: Callable[..., Path]) -> None:
    file = write_dataset(tmp_path / "a.h5", grids=np.zeros((2, 3, 3), "u1"))
    other = write_dataset(tmp_path / "b.h5", grids=np.ones((2, 3, 3), "u1"))
    with shared_files():
        with open_file(file) as before:
            other.replace(file)
            with open_file(file) as after:
                assert (before["grids"][0, 0, 0], after["grids"][0, 0, 0]) == (0, 1)
        assert class_counts(file).tolist() == [0, 18]


def test_a_file_that_is_replaced_while_it_is_counted_is_counted_again(
    tmp_path: Path, write_dataset: Callable[..., Path], said: Callable[[], str]
) -> None:
    file = write_dataset(tmp_path / "a.h5", grids=np.zeros((2, 3, 3), "u1"))
    other = write_dataset(tmp_path / "b.h5", grids=np.ones((2, 3, 3), "u1"))

    def replace(done: int, total: int) -> None:
        if other.exists():
            other.replace(file)

    with shared_files():
        found = count_dataset(file, progress=replace)
    assert found.counts.tolist() == [0, 18]
    assert "changed while it was counted" in said()


def test_of_many_files_one_stays_open(tmp_path: Path, write_dataset: Callable[..., Path]) -> None:
    files = [write_dataset(tmp_path / f"{n}.h5", grids=np.zeros((1, 2, 2), "u1")) for n in range(5)]
    handles = []
    with shared_files():
        for file in files:
            with open_file(file) as handle:
                handles.append(handle)
        assert [handle.id.valid for handle in handles] == [False] * 4 + [True]
        with open_file(files[4]) as kept, open_file(files[0]) as beside:
            assert kept is handles[4]
        assert not beside.id.valid


def test_other_threads_open_files_of_their_own(dataset: Path) -> None:
    found = []

    def read() -> None:
        with open_file(dataset) as handle:
            found.append(handle)

    def read_bytes() -> None:
        with open_bytes(dataset) as read:
            found.append(read(memoryview(bytearray(8)), 0))

    with shared_files(), open_file(dataset) as mine:
        for target in (read, partial(copy_context().run, read_bytes)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
        assert found[0] is not mine
        assert found[1] == 8
        assert mine["grids"].shape == (200, 8, 8)


def test_a_file_that_this_process_writes_is_seen_as_it_is_now(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as handle, shared_files():
        handle["grids"] = np.zeros((2, 3, 3), "u1")
        for ones in (0, 1, 2):
            handle["grids"][:ones] = 1
            assert class_counts(tmp_path / "w.h5").tolist() == [18 - 9 * ones, 9 * ones][: 1 + (ones > 0)]
