"""Full disks, kills, locks and crowds: the counts stay right, and no half file is left."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from vaefit.cache import DataError, count_dataset
from vaefit.cache.store import atomic, checked_json, counts_file
from vaefit.cache.store.atomic import replacing

COUNTS = [30_000_000 - 5_000_000, 3_000_000, 2_000_000]


pytestmark = pytest.mark.usefixtures("user_folder")


@pytest.fixture
def small(tmp_path: Path, write_dataset: Callable[..., Path]) -> Path:
    (tmp_path / "data").mkdir()
    return write_dataset(tmp_path / "data" / "maps.h5", grids=np.eye(8, dtype="u1")[None].repeat(20, 0))


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """30 million cells: a few spans, whichever way they are read."""
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "maps.h5"
    with h5py.File(file, "w") as handle:
        handle["grids"] = np.repeat(np.arange(3, dtype="u1"), COUNTS).reshape(30_000, 40, 25)
    return file


def child(script: str, *arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def finished(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_sixteen_processes_at_once(large: Path) -> None:
    script = """
import json, os, sys, time
from vaefit.cache import count_dataset
from vaefit.cache.store import cached_scan, partial_scan
partial_scan.SECONDS = 0.0
start = time.time() + 0.1
for _ in range(16):
    if os.fork() == 0:
        time.sleep(max(0, start - time.time()))
        found = count_dataset(sys.argv[1], threads=1)
        os._exit(0 if found.counts.tolist() == json.loads(sys.argv[2]) else 7)
print(sorted({os.wait()[1] for _ in range(16)}))
"""
    assert finished(child(script, large, json.dumps(COUNTS))) == "[0]\n"
    assert names(large.parent) == ["maps.h5", "maps.h5.vaefit.json"]
    assert count_dataset(large).source == "cache"


@pytest.mark.slow
def test_kills_at_random_moments(large: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = """
import sys
from vaefit.cache import count_dataset
from vaefit.cache.store import cached_scan, partial_scan
partial_scan.SECONDS = 0.0
print(flush=True)
while True:
    count_dataset(sys.argv[1], threads=1)
    __import__("os").utime(sys.argv[1])
    __import__("pathlib").Path(sys.argv[1] + ".vaefit.json").unlink()
"""
    moments = random.Random(4)
    for _ in range(10):
        process = child(script, large)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(moments.uniform(0.0, 0.08))
        process.kill()
        process.communicate()
        for file in large.parent.glob(".maps.h5.vaefit.partial.json"):
            assert json.loads(file.read_text())["schema"] == "vaefit.partial/2"
        for file in large.parent.glob("*.vaefit.json"):
            assert counts_file.read(file) is not None
    left = [p for p in large.parent.iterdir() if p.name.endswith(".tmp.json")]
    for file in left:
        os.utime(file, (1, 1))
    assert count_dataset(large).counts.tolist() == COUNTS
    assert count_dataset(large, rebuild=True).counts.tolist() == COUNTS
    assert names(large.parent) == ["maps.h5", "maps.h5.vaefit.json"]


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "maps[1].h5.vaefit.json"
    hour = atomic.STALE_SECONDS
    now = time.time()
    for name, age in {
        ".maps[1].h5.vaefit.0123abcd.tmp.json": hour + 60,
        ".maps[1].h5.vaefit.89abcdef.tmp.json": hour - 60,
        ".other.h5.vaefit.0123abcd.tmp.json": hour + 60,
        ".other.h5.notes.0123abcd.tmp.json": hour + 60,
        ".maps[1].h5.vaefit.0123abcd.tmp.json.bak": hour + 60,
        ".maps[1].h5.vaefit.notes.tmp.json": hour + 60,
        "maps[1].h5": hour + 60,
    }.items():
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (now - age, now - age))
    (tmp_path / ".maps[1].h5.vaefit.00000000.tmp.json").mkdir()
    before = set(names(tmp_path))
    atomic.remove_stale(file)
    removed = before - set(names(tmp_path))
    assert removed == {".maps[1].h5.vaefit.0123abcd.tmp.json", ".other.h5.vaefit.0123abcd.tmp.json"}


def test_a_process_looks_through_a_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    monkeypatch.setattr(atomic, "os", SimpleNamespace(scandir=lambda f: looks.append(f) or contextlib.nullcontext([])))
    for folder in ("one", "two"):
        for number in range(3):
            atomic.remove_stale(tmp_path / folder / f"{number}.h5.vaefit.json")
    assert looks == [tmp_path / "one", tmp_path / "two"]


def test_a_full_disk(small: Path, user_folder: Path) -> None:
    """A limit on the size of files stands in for it: the write begins, and fails half way."""
    script = """
import logging, resource, sys
logging.basicConfig()
from vaefit.cache import count_dataset
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
found = count_dataset(sys.argv[1])
assert (found.counts.tolist(), found.source, found.cache_file) == ([1120, 160], "scan", None)
"""
    process = child(script, small)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert os.strerror(errno.EFBIG) in err
    assert "could not be cached" in err
    assert names(small.parent) == ["maps.h5"]
    assert [p for p in user_folder.rglob("*") if p.is_file()] == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 300


def test_a_read_only_folder(small: Path, user_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_bytes

    def refuse(self: Path, data: bytes) -> int:
        if self.parent == small.parent:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    found = count_dataset(small)
    assert user_folder in found.cache_file.parents
    assert count_dataset(small).cache_file == found.cache_file
    assert names(small.parent) == ["maps.h5"]


def test_a_chosen_folder_that_takes_nothing(
    small: Path, tmp_path: Path, said: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, write = tmp_path / "chosen", Path.write_bytes
    assert count_dataset(small, cache_dir=chosen).cache_file.parent == chosen
    assert said() == ""

    def refuse(self: Path, data: bytes) -> int:
        if self.parent == chosen:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    found = count_dataset(small, cache_dir=chosen, rebuild=True)
    assert (found.counts.tolist(), found.cache_file.parent) == ([1120, 160], small.parent)
    why = os.strerror(errno.EROFS)
    assert said() == f"{chosen}: the counts could not be cached in this folder: {why}"


def test_a_failing_rename_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "kept.json"
    file.write_text("old")

    def refuse(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(KeyboardInterrupt), replacing(file) as temporary:
        temporary.write_text("new")
    assert (file.read_text(), names(tmp_path)) == ("old", ["kept.json"])


@pytest.fixture
def writer() -> Iterator[Callable[[Path], None]]:
    """Another process that has a file open for writing until the test ends."""
    open_ones = []

    def hold(file: Path) -> None:
        process = child("import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); print(flush=True); sys.stdin.read()", file)
        assert process.stdout is not None
        process.stdout.readline()
        open_ones.append(process)

    yield hold
    for process in open_ones:
        process.kill()
        process.communicate()


def test_a_file_that_another_process_writes(small: Path, writer: Callable[[Path], None]) -> None:
    writer(small)
    with pytest.raises(DataError, match="open for writing elsewhere"):
        count_dataset(small)
    assert names(small.parent) == ["maps.h5"]


def test_a_source_that_another_process_writes(small: Path, writer: Callable[[Path], None]) -> None:
    main = small.with_name("main.h5")
    with h5py.File(main, "w") as handle:
        layout = h5py.VirtualLayout((20, 8, 8), "u1")
        layout[:] = h5py.VirtualSource("maps.h5", "grids", (20, 8, 8))
        handle.create_virtual_dataset("grids", layout)
    writer(small)
    with pytest.raises(DataError):
        count_dataset(main)
    assert not list(small.parent.glob("*.json"))


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, 524])
def test_a_file_system_without_locks(small: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    real = h5py.File

    def without_locks(name: Any, mode: str, locking: bool | None = None) -> h5py.File:
        if locking is not False:
            what = f"Unable to synchronously open file (unable to lock file, errno = {code}, error message = '...')"
            raise OSError(code, what)
        return real(name, mode, locking=locking)

    monkeypatch.setattr(h5py, "File", without_locks)
    assert count_dataset(small).counts.tolist() == [1120, 160]
    assert count_dataset(small).source == "cache"


def test_a_cached_file_of_another_dataset(small: Path, write_dataset: Callable[..., Path]) -> None:
    """Files of equal size and shape differ only in their stamps and digests."""
    other = write_dataset(small.with_name("other.h5"), grids=np.eye(8, dtype="u1")[None].repeat(20, 0) * 2)
    assert other.stat().st_size == small.stat().st_size
    theirs = count_dataset(other).cache_file
    theirs.rename(small.with_name("maps.h5.vaefit.json"))
    assert count_dataset(small).counts.tolist() == [1120, 160]
    assert count_dataset(other).counts.tolist() == [1120, 0, 160]


@pytest.mark.slow
def test_the_work_of_a_hit(small: Path) -> None:
    """A cached answer opens no HDF5 file and imports no slow module."""
    count_dataset(small)
    time.sleep(2.1)
    count_dataset(small)  # the times are no longer new
    script = """
import sys
from vaefit.cache import count_dataset
assert count_dataset(sys.argv[1]).source == "cache"
print([name for name in ("h5py", "torch", "vaefit.cache.scan", "vaefit.cache.hdf5.dataset") if name in sys.modules])
"""
    assert finished(child(script, small)) == "[]\n"


def test_the_checksum_covers_what_is_read_back(tmp_path: Path) -> None:
    body = {"a": [1, {"b": "\udc80"}], "z": None}
    file = tmp_path / "file.json"
    file.write_bytes(checked_json.add_checksum("family/3", body))
    assert checked_json.verify_checksum(file, "family/3") == {"schema": "family/3", **body}
    for schema, said in (("family/2", "newer"), ("family/4", "older"), ("clan/3", "not clan")):
        with pytest.raises(checked_json.RejectedError, match=said):
            checked_json.verify_checksum(file, schema)
