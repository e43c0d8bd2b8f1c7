"""Datasets whose cells lie in other files: cached, and seen to change when any of these files does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from vaefit.cache import DataError, count_dataset
from vaefit.cache.hdf5.stamp import Stamp
from vaefit.cache.location import Location
from vaefit.cache.store import checked_json, counts_file
from vaefit.cache.store.sources import UnlistedError, list_sources

SHAPE = (4, 8, 8)
FILL = 3


@pytest.fixture(autouse=True)
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user_cache"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for the data; the working folder is another."""
    for name in ("data", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "data"


def plain(file: Path, label: int = 0) -> Path:
    with h5py.File(file, "w") as handle:
        handle["grids"] = np.full(SHAPE, label, "u1")
    return file


def virtual(file: Path, source: str, name: str = "grids", own: str = "grids") -> Path:
    """A dataset of which `source` has the first half of each grid; nothing has the other."""
    with h5py.File(file, "a") as handle:
        layout = h5py.VirtualLayout(SHAPE, "u1")
        layout[:, :4] = h5py.VirtualSource(source, name, SHAPE)[:, :4]
        handle.create_virtual_dataset(own, layout, fillvalue=FILL)
    return file


def raw(file: Path, cells: str, name: str = "grids") -> Path:
    with h5py.File(file, "w") as handle:
        handle.create_dataset(name, SHAPE, "u1", external=[(cells, 0, 100), (cells, 100, 156)])
    return file


def answer(data: Path | str) -> tuple[list[int], str]:
    found = count_dataset(data)
    return found.counts.tolist(), found.source


def truth(data: Path | str) -> list[int]:
    location = Location.parse(data)
    with h5py.File(location.file) as handle:
        return np.bincount(handle[location.dataset or "grids"][()].ravel()).tolist()


def turn_a_cell(file: Path) -> None:
    """Change the first cell in place, and put the file's times back."""
    before = file.stat()
    if file.suffix == ".raw":
        with file.open("r+b") as stream:
            first = stream.read(1)[0]
            stream.seek(0)
            stream.write(bytes([first + 1]))
    else:
        with h5py.File(file, "r+") as handle:
            handle["grids"][0, 0, 0] += 1
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size


def linked(file: Path, **links: h5py.SoftLink | h5py.ExternalLink) -> Path:
    with h5py.File(file, "a") as handle:
        for name, link in links.items():
            handle[name] = link
    return file


def arrange(folder: Path, kind: str) -> tuple[str, list[Path]]:
    """A dataset of a kind, and the files whose cells it shows."""
    main, part, cells = folder / "main.h5", folder / "sub" / "part.h5", folder / "cells.raw"
    part.parent.mkdir()
    data, files = f"{main}:/grids", [part]
    if kind == "virtual":
        virtual(main, "sub/part.h5")
        plain(part)
    elif kind == "virtual by its full name":
        virtual(main, str(part))
        plain(part)
    elif kind == "virtual of virtual of raw":
        virtual(main, "sub/part.h5")
        virtual(part, "last.h5")
        raw(part.with_name("last.h5"), str(cells))
        cells.write_bytes(bytes(256))
        files = [cells]
    elif kind == "virtual in itself":
        virtual(main, ".", "other")
        virtual(main, "sub/part.h5", own="other")
        plain(part)
    elif kind == "virtual behind a link":
        virtual(main, "middle.h5", "soft")
        linked(folder / "middle.h5", soft=h5py.SoftLink("/hard"), hard=h5py.ExternalLink("sub/part.h5", "/grids"))
        plain(part)
    elif kind == "link":
        linked(main, grids=h5py.ExternalLink("sub/part.h5", "/grids"))
        plain(part)
    elif kind == "links through three files":
        # at the first component of the path, then at the last, then to a dataset that is virtual
        linked(main, group=h5py.ExternalLink("middle.h5", "/deep/er"))
        with h5py.File(folder / "middle.h5", "w") as handle:
            handle.create_group("deep/er")["grids"] = h5py.ExternalLink("sub/part.h5", "/grids")
        virtual(part, "last.h5")
        data, files = f"{main}:/group/grids", [plain(part.with_name("last.h5"))]
    elif kind == "two parts":
        n, height, width = SHAPE
        layout = h5py.VirtualLayout((2 * n, height, width), "u1")
        layout[:n] = h5py.VirtualSource("sub/part.h5", "grids", SHAPE)
        layout[n:] = h5py.VirtualSource("sub/last.h5", "grids", SHAPE)
        with h5py.File(main, "w") as handle:
            handle.create_virtual_dataset("grids", layout)
        files = [plain(part), plain(part.with_name("last.h5"))]
    else:
        raw(main, str(cells))
        cells.write_bytes(bytes(256))
        files = [cells]
    return data, files


KINDS = [
    "virtual",
    "virtual by its full name",
    "virtual of virtual of raw",
    "virtual in itself",
    "virtual behind a link",
    "link",
    "links through three files",
    "two parts",
    "raw",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_of_any_file_is_seen(folder: Path, said: Any, kind: str) -> None:
    data, files = arrange(folder, kind)
    assert answer(data) == (truth(data), "scan")
    assert answer(data) == (truth(data), "cache")
    main = Location.parse(data).file
    for file in files:
        before = truth(data)
        stamp = main.stat()
        turn_a_cell(file)
        assert main.stat().st_ctime_ns == stamp.st_ctime_ns, "the main file shows nothing of it"
        assert truth(data) != before
        assert answer(data) == (truth(data), "scan")
        assert answer(data) == (truth(data), "cache")
        os.utime(file)
        assert answer(data) == (truth(data), "cache")
        twin = shutil.copy(file, folder / "twin")
        Path(twin).replace(file)
        assert answer(data) == (truth(data), "cache")
    assert not said()


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("raw", "virtual of virtual of raw")])
def test_a_copy_of_all_files_is_a_hit_and_then_its_own(folder: Path, tmp_path: Path, kind: str) -> None:
    data, files = arrange(folder, kind)
    answer(data)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    there = data.replace(str(folder), str(copy))
    assert answer(there) == (truth(data), "cache")
    before = truth(data)
    turn_a_cell(copy / files[0].relative_to(folder))
    assert answer(data) == (before, "cache")
    assert answer(there)[0] == truth(there)


def test_a_source_that_turns_up_later_is_seen(folder: Path) -> None:
    main = virtual(folder / "main.h5", "part.h5")
    with pytest.raises(DataError, match=r"part\.h5:/grids, which is missing"):
        answer(main)
    part = plain(folder / "part.h5", 1)
    assert answer(main) == ([0, 128, 0, 128], "scan")
    assert answer(main) == ([0, 128, 0, 128], "cache")
    part.unlink()
    with pytest.raises(DataError, match=r"part\.h5:/grids, which is missing"):
        answer(main)


def test_a_file_that_turns_up_earlier_in_the_search_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 looks in the main file's folder, then in the working folder, then where the main file really lies."""
    real = folder.parent / "real"
    real.mkdir()
    (folder / "main.h5").symlink_to(virtual(real / "main.h5", "part.h5"))
    main, counts = folder / "main.h5", [128, 0, 0, 128]
    plain(real / "part.h5", 0)
    assert answer(main) == (counts, "scan")
    assert answer(main) == (counts, "cache")
    for label, edited in ((2, [0, 0, 128, 128]), (0, counts)):
        plain(real / "part.h5", label)
        assert answer(main) == (edited, "scan")
    for label, place in ((1, Path.cwd()), (2, folder)):
        plain(place / "part.h5", label)
        counts = [0, 0, 0, 128]
        counts[label] = 128
        assert truth(main) == counts
        assert answer(main) == (counts, "scan")
        assert answer(main) == (counts, "cache")
    (folder / "part.h5").unlink()
    assert answer(main) == ([0, 128, 0, 128], "scan")
    monkeypatch.chdir(folder)
    assert answer(main) == ([128, 0, 0, 128], "scan")


def test_raw_files_are_looked_for_in_the_working_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = raw(folder / "main.h5", "cells.raw")
    for label, name in enumerate(("one", "two")):
        (folder / name).mkdir()
        (folder / name / "cells.raw").write_bytes(bytes([label]) * 256)
    for label, name in ((0, "one"), (1, "two"), (0, "one"), (1, "two")):
        monkeypatch.chdir(folder / name)
        assert answer(main)[0] == truth(main) == [0] * label + [256]


@pytest.mark.slow
def test_folders_from_the_environment(folder: Path, tmp_path: Path) -> None:
    """A process gets HDF5's answer in its own environment, not the one that another process cached."""
    for label, place in enumerate(("data", "elsewhere", "other", "third")):
        (tmp_path / place).mkdir(exist_ok=True)
        plain(tmp_path / place / "part.h5", label)
        (tmp_path / place / "cells.raw").write_bytes(bytes([label]) * 256)
    virtual(folder / "virtual.h5", "part.h5")
    linked(folder / "link.h5", grids=h5py.ExternalLink("part.h5", "/grids"))
    raw(folder / "raw.h5", "cells.raw")
    script = """
import sys, h5py, numpy as np
from vaefit.cache import count_dataset
for name in ("virtual", "link", "raw"):
    file = f"{sys.argv[1]}/{name}.h5"
    for _ in range(2):
        found = count_dataset(f"{file}:/grids")
        with h5py.File(file) as handle:
            assert found.counts.tolist() == np.bincount(handle["grids"][()].ravel()).tolist(), (name, found)
        print(found.source, found.counts.tolist())
"""
    names = ("HDF5_VDS_PREFIX", "HDF5_EXT_PREFIX", "HDF5_EXTFILE_PREFIX")
    printed = set()
    for prefix in (None, "../other", "${ORIGIN}", "${ORIGIN}/../third", "/none:../other", None):
        environment = {k: v for k, v in os.environ.items() if k not in names}
        environment |= {} if prefix is None else dict.fromkeys(names[:2], prefix)
        environment |= {} if prefix is None or ":" in prefix else {names[2]: prefix}
        command = [sys.executable, "-c", script, str(folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, "further folders" in done.stderr) == (0, prefix is not None), done.stderr
        assert done.stdout.count("cache") == (0 if prefix else 6 if printed else 3)
        printed.add(done.stdout)
    assert len(printed) == 6


def test_a_changed_environment_that_hdf5_does_not_follow(
    folder: Path, monkeypatch: pytest.MonkeyPatch, said: Any
) -> None:
    """HDF5 reads the variable when it is loaded: a later value says nothing of the folders that it searches."""
    cells = Path.cwd() / "cells.raw"
    cells.write_bytes(bytes(256))
    main = raw(folder / "main.h5", "cells.raw")
    monkeypatch.setenv("HDF5_EXTFILE_PREFIX", "/somewhere/else")
    assert answer(main) == ([256], "scan")
    assert answer(main) == ([256], "scan")
    assert "searched for in further folders: HDF5_EXTFILE_PREFIX" in said()
    script = """
import os, sys, h5py
del os.environ["HDF5_EXTFILE_PREFIX"]
from vaefit.cache import count_dataset
for _ in range(2):
    print(count_dataset(sys.argv[1]).source)
"""
    environment = os.environ | {"HDF5_EXTFILE_PREFIX": str(Path.cwd())}
    command = [sys.executable, "-c", script, str(main)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["scan", "scan"]
    assert "took folders to search from the environment" in done.stderr


def unlimited(file: Path, source: str) -> Path:
    with h5py.File(file, "w") as handle:
        layout = h5py.VirtualLayout(SHAPE, "u1", maxshape=(None, 8, 8))
        part = h5py.VirtualSource(source, "grids", SHAPE, maxshape=(None, 8, 8))
        layout[: h5py.h5s.UNLIMITED] = part[: h5py.h5s.UNLIMITED]
        handle.create_virtual_dataset("grids", layout, fillvalue=FILL)
    return file


def growing(file: Path) -> Path:
    with h5py.File(file, "w") as handle:
        handle.create_dataset("grids", data=np.zeros(SHAPE, "u1"), maxshape=(None, 8, 8))
    return file


def test_sources_without_limits_are_not_cached(folder: Path, said: Any) -> None:
    growing(folder / "part.h5")
    main = unlimited(folder / "main.h5", "part.h5")
    assert answer(main) == ([256], "scan")
    assert answer(main) == ([256], "scan")
    assert "not cached, for it is virtual without limits" in said()


def test_sources_by_a_pattern_are_not_cached(folder: Path, said: Any) -> None:
    n, height, width = SHAPE
    create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    target = h5py.h5s.create_simple((n, height, width), (h5py.h5s.UNLIMITED, height, width))
    target.select_hyperslab((0, 0, 0), (h5py.h5s.UNLIMITED, 1, 1), (n, 1, 1), (n, height, width))
    create.set_virtual(target, b"part-%b.h5", b"grids", h5py.h5s.create_simple(SHAPE))
    main = folder / "main.h5"
    with h5py.File(main, "w") as handle:
        whole = h5py.h5s.create_simple((0, height, width), (h5py.h5s.UNLIMITED, height, width))
        h5py.h5d.create(handle.id, b"grids", h5py.h5t.NATIVE_UINT8, whole, create)
    for number in range(3):
        plain(folder / f"part-{number}.h5", number)
        expected = [256] * (number + 1)
        assert answer(main) == (expected, "scan")
        assert answer(main) == (expected, "scan")
    assert "pattern" in said()


def test_a_file_that_is_not_hdf5_does_not_end_the_search(folder: Path) -> None:
    """HDF5 2 stops at it with an error, earlier versions go on; what either might read is listed."""
    main = virtual(folder / "main.h5", "part.h5")
    (folder / "part.h5").write_text("something else")
    plain(Path.cwd() / "part.h5")
    sources, stamps, _ = list_sources(Location(main))
    assert [(source.base, source.path) for source in sources.files[1:]] == [("folder", "part.h5"), ("cwd", "part.h5")]
    assert None not in stamps


@pytest.mark.parametrize("kind", ["itself", "two datasets", "two files", "links"])
def test_a_dataset_made_of_itself_is_refused(folder: Path, kind: str) -> None:
    main = folder / "main.h5"
    if kind == "itself":
        virtual(main, "main.h5")
    elif kind == "two datasets":
        virtual(main, ".", "other")
        virtual(main, ".", "grids", own="other")
    elif kind == "two files":
        virtual(main, "part.h5")
        virtual(folder / "part.h5", "../data/main.h5")
    else:
        linked(main, grids=h5py.ExternalLink("part.h5", "/grids"))
        linked(folder / "part.h5", grids=h5py.ExternalLink("main.h5", "/grids"))
    with pytest.raises(DataError, match="made of itself"):
        count_dataset(f"{main}:/grids")


def test_soft_links_in_a_ring_are_refused(folder: Path) -> None:
    main = linked(folder / "main.h5", grids=h5py.SoftLink("/other"), other=h5py.SoftLink("/grids"))
    with pytest.raises(UnlistedError):
        list_sources(Location(main, "grids"))
    with pytest.raises(DataError):
        count_dataset(f"{main}:/grids")


def test_a_thousand_mappings_of_one_file_are_one_source(folder: Path) -> None:
    plain(folder / "part.h5")
    main = folder / "main.h5"
    layout = h5py.VirtualLayout((1000, 8, 8), "u1")
    for grid in range(1000):
        layout[grid] = h5py.VirtualSource("part.h5", "grids", SHAPE)[grid % 4]
    with h5py.File(main, "w") as handle:
        handle.create_virtual_dataset("grids", layout)
    sources, _, holder = list_sources(Location(main))
    assert [source.path for source in sources.files] == ["", "part.h5"]
    assert holder == main


def test_the_cached_file_names_every_file(folder: Path) -> None:
    data, _ = arrange(folder, "links through three files")
    held = json.loads(count_dataset(data).cache_file.read_text())
    assert [entry["path"] for entry in held["sources"]] == ["", "middle.h5", "sub/part.h5", "sub/last.h5"]


def test_only_files_that_the_data_names_are_read(folder: Path) -> None:
    """A cached file with a right checksum may name any files, such as one of a TiB."""
    main = virtual(folder / "main.h5", "part.h5")
    plain(folder / "part.h5", 1)
    found = count_dataset(main)
    os.truncate(os.open(folder / "large", os.O_CREAT | os.O_WRONLY), 1 << 40)
    body = json.loads(found.cache_file.read_text())
    del body["schema"], body["checksum"]
    stamp = list(vars(Stamp.from_path(folder / "large")).values())
    body["sources"].append({"base": "folder", "path": "large", "stamp": stamp})
    found.cache_file.write_bytes(checked_json.add_checksum(counts_file.SCHEMA, body))
    os.utime(main)  # so that the bytes would decide
    before = time.monotonic()
    assert answer(main) == (truth(main), "scan")
    assert time.monotonic() - before < 10
