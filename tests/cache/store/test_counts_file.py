"""The cached weights file: believed only where it is true, and never in the way."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from vaefit.cache import DatasetCounts, class_counts, count_dataset
from vaefit.cache.errors import DataError

RACY_SECONDS = 2.2
"""Longer than the time in which two writes may show the same mtime on a coarse file system."""


pytestmark = pytest.mark.usefixtures("user_folder")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """20 grids, alone in their folder: class 0 in 1000 cells, 1 in 200, 2 in 80."""
    folder = tmp_path / "data"
    folder.mkdir()
    return write_grids(folder / "maps.h5", [1000, 200, 80])


@pytest.fixture(params=["fine", "coarse"])
def clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system as it is, and one that keeps times in steps of two seconds, as FAT does."""
    step, real = 2_000_000_000, os.stat

    class Coarse:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.fine = real(*args, **kwargs)

        def __getattr__(self, name: str) -> Any:
            value = getattr(self.fine, name)
            return value // step * step if name in ("st_mtime_ns", "st_ctime_ns") else value

    if request.param == "coarse":
        monkeypatch.setattr(os, "stat", Coarse)


def write_grids(file: Path, counts: list[int], name: str = "grids", dtype: str = "u1") -> Path:
    """Files of equal `sum(counts)` and dtype have equal sizes."""
    cells = np.repeat(np.arange(len(counts)), counts).astype(dtype)
    with h5py.File(file, "a") as handle:
        handle.create_dataset(name, data=cells.reshape(20, 8, 8))
    return file


def edit(file: Path, label: int) -> None:
    """Turn one more cell of the background into `label`, in place, and put the file's times back."""
    before = file.stat()
    with h5py.File(file, "r+") as handle:
        cells = handle["grids"][:]
        cells[tuple(np.argwhere(cells == 0)[0])] = label
        handle["grids"][:] = cells
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)


def beside(file: Path, tail: str = "") -> Path:
    return file.with_name(f"{file.name}{tail}.vaefit.json")


def answer(data: str | Path, **settings: Any) -> tuple[list[int], str]:
    found = count_dataset(data, **settings)
    return found.counts.tolist(), found.source


def everything(found: DatasetCounts) -> tuple[Any, ...]:
    return (found.location, found.dataset, found.counts.tolist(), found.shape, found.digest, found.cells)


def test_the_second_answer_is_the_first_from_the_cache(data: Path, said: Any) -> None:
    first, second = count_dataset(data), count_dataset(data)
    assert (first.source, second.source) == ("scan", "cache")
    assert first.cache_file == second.cache_file == beside(data)
    assert everything(first) == everything(second)
    assert (first.route != "", first.reason != "", first.threads >= 1, first.resumed) == (True, True, True, 0)
    assert (second.route, second.reason, second.threads, second.resumed) == ("", "", 0, 0)
    assert count_dataset(data, use_cache=False, threads=1).threads == 1
    assert second.counts.dtype == np.int64
    assert second.counts.tolist() == [1000, 200, 80]
    # no temporary files, and nothing in the user's folders
    assert sorted(p.name for p in data.parent.iterdir()) == ["maps.h5", "maps.h5.vaefit.json"]
    assert not said()


def test_the_file_holds_counts_and_no_weights(data: Path) -> None:
    count_dataset(data)
    held = json.loads(beside(data).read_text())
    assert held["labels"] == [1000, 200, 80]
    assert not [key for key in held if "weight" in key]


def test_the_digest_is_that_of_the_file(data: Path) -> None:
    assert count_dataset(data).digest == hashlib.sha256(data.read_bytes()).hexdigest()
    assert count_dataset(data, use_cache=False).digest is None


def test_what_was_counted_is_told_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "maps.h5"
    with h5py.File(file, "w") as handle:
        handle.create_dataset("grids", (20, 8, 8), ">i4", chunks=(4, 8, 8), shuffle=True, compression=4, fillvalue=-3)
    held = json.loads(count_dataset(file, ignore_index=-3).cache_file.read_text())
    told = {name: held[name] for name in ("dataset", "shape", "dtype", "chunks", "filters", "outside")}
    assert told == {
        "dataset": "grids",
        "shape": [20, 8, 8],
        "dtype": ">i4",
        "chunks": [4, 8, 8],
        "filters": ["shuffle 4", "deflate 4"],
        "outside": 1280,
    }
    assert count_dataset(file, ignore_index=-3).source == "cache"


def test_without_the_cache_none_is_read_or_written(data: Path, user_folder: Path) -> None:
    assert answer(data, use_cache=False) == ([1000, 200, 80], "scan")
    assert class_counts(data, use_cache=False).tolist() == [1000, 200, 80]
    assert not beside(data).exists()
    assert not user_folder.exists()
    count_dataset(data)
    written = beside(data).read_bytes()
    assert answer(data, use_cache=False) == ([1000, 200, 80], "scan")
    assert beside(data).read_bytes() == written


def test_rebuild_scans_and_writes_anew(data: Path) -> None:
    count_dataset(data)
    beside(data).write_text("torn")
    assert answer(data, rebuild=True) == ([1000, 200, 80], "scan")
    assert answer(data, rebuild=True) == ([1000, 200, 80], "scan")
    assert answer(data) == ([1000, 200, 80], "cache")


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("wait", [0.0, RACY_SECONDS], ids=["at once", "later"])
def test_an_edit_in_place_with_its_times_put_back_is_seen(data: Path, wait: float) -> None:
    time.sleep(wait)
    counts = [1000, 200, 80]
    for label in (1, 2, 1):
        assert answer(data)[0] == counts
        assert answer(data) == (counts, "cache")
        edit(data, label)
        counts[0] -= 1
        counts[label] += 1
        assert answer(data) == (counts, "scan")


@pytest.mark.usefixtures("clock")
def test_an_edit_after_a_touch_is_seen(data: Path) -> None:
    """The touch renews what is remembered of the file; the edit follows within one tick of a coarse clock."""
    count_dataset(data)
    for label in (1, 2):
        os.utime(data)
        assert count_dataset(data).source == "cache"
        edit(data, label)
        assert count_dataset(data).source == "scan"
    assert answer(data) == ([998, 201, 81], "cache")


@pytest.mark.parametrize("ns", [None, (0, 0), (4 * 10**18, 4 * 10**18)], ids=["now", "1970", "2096"])
def test_a_touch_changes_no_answer(data: Path, ns: tuple[int, int] | None) -> None:
    count_dataset(data)
    os.utime(data, ns=ns) if ns else os.utime(data)
    assert answer(data) == ([1000, 200, 80], "cache")
    assert answer(data) == ([1000, 200, 80], "cache")
    edit(data, 2)
    assert answer(data) == ([999, 200, 81], "scan")


def test_a_new_number_of_classes_in_the_attribute_is_seen(data: Path) -> None:
    with h5py.File(data, "r+") as handle:
        handle["grids"].attrs["classes"] = 4
    assert answer(data) == ([1000, 200, 80, 0], "scan")
    before = data.stat()
    with h5py.File(data, "r+") as handle:
        handle["grids"].attrs.modify("classes", 5)
    os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert answer(data) == ([1000, 200, 80, 0, 0], "scan")
    assert answer(data) == ([1000, 200, 80, 0, 0], "cache")


def test_a_twin_of_equal_size_and_times_is_another_file(data: Path) -> None:
    count_dataset(data)
    twin = write_grids(data.with_name("twin.h5"), [900, 300, 80])
    before = data.stat()
    os.utime(twin, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert twin.stat().st_size == before.st_size
    twin.replace(data)
    assert answer(data) == ([900, 300, 80], "scan")
    assert answer(data) == ([900, 300, 80], "cache")


def test_a_copy_brings_its_cached_file_along(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count_dataset(data)
    copy = tmp_path / "copy"
    shutil.copytree(data.parent, copy)
    assert answer(copy / "maps.h5") == ([1000, 200, 80], "cache")
    monkeypatch.chdir(copy)
    assert answer("maps.h5") == ([1000, 200, 80], "cache")
    assert answer(data) == ([1000, 200, 80], "cache")


def tamper(text: bytes, **changes: Any) -> bytes:
    return json.dumps(json.loads(text) | changes).encode()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: b"",
        lambda text: text[: len(text) // 2],
        lambda text: text[:-1],
        lambda text: b"\x00" * len(text),
        lambda text: b"\xff\xfe" + text,
        lambda text: b'{"name": "another tool"}',
        lambda text: b"[1, 2, 3]",
        lambda text: b"null",
        lambda text: b"[" * 100_000,
        lambda text: tamper(text, labels=[1, 2, 3]),
        lambda text: tamper(text, checksum="0" * 64),
        lambda text: tamper(text, checksum=None),
    ],
)
def test_a_spoiled_file_is_ignored_aloud_and_rebuilt(data: Path, said: Any, spoil: Any) -> None:
    count_dataset(data)
    beside(data).write_bytes(spoil(beside(data).read_bytes()))
    assert answer(data) == ([1000, 200, 80], "scan")
    assert str(beside(data)) in said()
    assert "ignored" in said()
    assert answer(data) == ([1000, 200, 80], "cache")


def test_no_part_of_the_file_can_be_changed_unnoticed(data: Path) -> None:
    count_dataset(data)
    written = beside(data).read_bytes()
    for key, value in json.loads(written).items():
        beside(data).write_bytes(tamper(written, **{key: 7 if value != 7 else 8}))
        assert answer(data) == ([1000, 200, 80], "scan"), key


def test_a_folder_in_its_place_is_ignored_aloud(data: Path, user_folder: Path, said: Any) -> None:
    beside(data).mkdir()
    found = count_dataset(data)
    assert found.counts.tolist() == [1000, 200, 80]
    assert found.source == "scan"
    assert str(beside(data)) in said()
    # the next place takes it, and answers from then on; the failed write leaves nothing behind
    assert user_folder in found.cache_file.parents
    assert answer(data) == ([1000, 200, 80], "cache")
    assert sorted(p.name for p in data.parent.iterdir()) == ["maps.h5", "maps.h5.vaefit.json"]


def test_the_places_in_their_order(data: Path, tmp_path: Path, user_folder: Path) -> None:
    chosen = tmp_path / "not" / "yet" / "made"
    first = count_dataset(data, cache_dir=chosen)
    assert first.cache_file == chosen / "maps.h5.vaefit.json"
    assert answer(data, cache_dir=chosen) == ([1000, 200, 80], "cache")
    assert not beside(data).exists()
    assert count_dataset(data).cache_file == beside(data)
    assert not user_folder.exists()
    # a file where the folder should be: the next place
    other = tmp_path / "file"
    other.write_text("")
    assert count_dataset(data, cache_dir=other, rebuild=True).cache_file == beside(data)


def test_where_nothing_can_be_written_the_counts_are_still_right(
    data: Path, user_folder: Path, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_dataset(data)
    written = beside(data).read_bytes()
    edit(data, 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    found = count_dataset(data)
    assert (found.counts.tolist(), found.source, found.cache_file) == ([999, 201, 80], "scan", None)
    assert "No space left on device" in said()
    assert beside(data).read_bytes() == written
    assert [p for p in data.parent.iterdir() if p not in (data, beside(data))] == []
    assert [p for p in user_folder.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("spoil", ["stale", "torn", "other dataset"])
@pytest.mark.parametrize("hidden", ["beside", "user"])
def test_a_useless_file_never_hides_a_valid_one(
    data: Path, tmp_path: Path, user_folder: Path, hidden: str, spoil: str
) -> None:
    chosen = tmp_path / "chosen"
    useless = count_dataset(data, cache_dir=chosen).cache_file.read_bytes()
    edit(data, 2)
    valid = count_dataset(data).cache_file
    if hidden == "user":
        valid.unlink()
        valid.mkdir()
        valid = count_dataset(data).cache_file
        assert user_folder in valid.parents
        beside(data).rmdir()
        beside(data).write_bytes(useless)
    place = chosen / "maps.h5.vaefit.json"
    if spoil == "torn":
        place.write_bytes(useless[:99])
    elif spoil == "other dataset":
        write_grids(tmp_path / "maps.h5", [1280])
        count_dataset(tmp_path / "maps.h5", cache_dir=chosen, rebuild=True)
    found = count_dataset(data, cache_dir=chosen)
    assert (found.counts.tolist(), found.source) == ([999, 200, 81], "cache")


def test_files_of_one_name_share_a_folder_without_mixing(data: Path, tmp_path: Path) -> None:
    other = write_grids(tmp_path / "maps.h5", [700, 500, 80])
    os.utime(other, ns=(data.stat().st_atime_ns, data.stat().st_mtime_ns))
    for _ in range(2):
        assert answer(data, cache_dir=tmp_path / "chosen")[0] == [1000, 200, 80]
        assert answer(other, cache_dir=tmp_path / "chosen")[0] == [700, 500, 80]
        for file in (data, other):
            beside(file).unlink(missing_ok=True)
            beside(file).mkdir()
        assert answer(data)[0] == [1000, 200, 80]
        assert answer(other)[0] == [700, 500, 80]
        for file in (data, other):
            beside(file).rmdir()


def test_datasets_of_one_file_are_kept_apart(tmp_path: Path) -> None:
    file = write_grids(tmp_path / "two.h5", [1280], "a/b")
    write_grids(file, [80, 1200], "a.b")
    wanted = {"a/b": [1280], "a.b": [80, 1200]}
    for turn, name in enumerate(("a/b", "a.b", "a/b", "a/b", "a.b")):
        found = count_dataset(f"{file}:/{name}")
        assert found.source == ("scan" if turn < 2 else "cache")
        assert found.counts.tolist() == wanted[name]
        assert found.cache_file == beside(file, "." + name.replace(".", "%2E").replace("/", "."))
    # which dataset is the only one may change: naming none is a question of its own
    with pytest.raises(DataError, match="2 datasets"):
        count_dataset(file)


def test_another_number_of_classes_is_answered_from_the_cache(data: Path) -> None:
    count_dataset(data)
    assert answer(data, classes=5) == ([1000, 200, 80, 0, 0], "cache")
    assert answer(data, classes=3) == ([1000, 200, 80], "cache")
    with pytest.raises(DataError, match=r"grid 18, row 6, column 0.*--classes 3"):
        count_dataset(data, classes=2)


def test_another_ignore_index_never_gets_the_counts_of_the_first(tmp_path: Path) -> None:
    file = write_grids(tmp_path / "maps.h5", [1000, 200, 80], dtype="i1")
    assert answer(file)[0] == [1000, 200, 80]
    for ignore, counts in ((0, [0, 200, 80]), (2, [1000, 200]), (-100, [1000, 200, 80]), (None, [1000, 200, 80])):
        assert answer(file, ignore_index=ignore)[0] == counts
        assert answer(file, ignore_index=ignore)[0] == counts
    edit(file, -1)
    with pytest.raises(DataError, match="negative"):
        count_dataset(file)
    assert answer(file, ignore_index=-1) == ([999, 200, 80], "scan")
    assert answer(file, ignore_index=-1) == ([999, 200, 80], "cache")
    for ignore in (None, -2, 0):
        with pytest.raises(DataError, match=r"negative label.*grid 0, row 0, column 0.*-1"):
            count_dataset(file, ignore_index=ignore)


def test_counts_that_are_not_cached_where_no_scan_is_allowed(data: Path) -> None:
    with pytest.raises(DataError, match=r"maps\.h5.*scan"):
        count_dataset(data, may_scan=False)
    count_dataset(data)
    assert answer(data, may_scan=False) == ([1000, 200, 80], "cache")
    edit(data, 1)
    with pytest.raises(DataError, match=r"maps\.h5.*scan"):
        count_dataset(data, may_scan=False)
