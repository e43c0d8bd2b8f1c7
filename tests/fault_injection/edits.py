"""Changes that a cache is easily deceived by: of the data, of other files that it is made of, of what a name means."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np

from tests.fault_injection.dataset import Slow
from tests.fault_injection.scene import CELLS, DATASET, SHAPE, Scene, WrongError, must, must_fail, relabel


def edited(scene: Scene) -> None:
    """The dataset edited in place, its times put back."""
    data = scene.dataset("a.h5", 1)
    scene.ready()
    must(scene.count("a.h5"), 1, "scan")
    must(scene.count("a.h5"), 1, "cache")
    for old, new in ((1, 2), (2, 3), (3, 1)):
        relabel(data, old, new)
        must(scene.count("a.h5"), new, "scan")
        must(scene.count("a.h5"), new, "cache")


def raw_file_edited(scene: Scene) -> None:
    """An external raw file edited, its times put back."""
    pieces = [(str(scene.path("cells.raw")), 0, CELLS)]
    with h5py.File(scene.path("a.h5"), "w") as handle:
        handle.create_dataset(DATASET, data=np.full(SHAPE, 1, np.uint8), external=pieces)
    _deceive(scene, scene.path("cells.raw"))


def source_edited(scene: Scene) -> None:
    """The source of a virtual dataset edited, its times put back."""
    source = scene.dataset("part.h5", 1)
    _virtual(scene, source)
    _deceive(scene, source)


def source_arrives(scene: Scene) -> None:
    """The source of a virtual dataset is missing, which is an error, and arrives."""
    source = scene.dataset("part.h5", 1)
    _virtual(scene, source)
    source.rename(scene.path("hidden"))
    scene.ready()
    must_fail(scene.count("a.h5"), "part.h5:/grids, which is missing")
    scene.path("hidden").rename(source)
    must(scene.count("a.h5"), 1, "scan")


def target_edited(scene: Scene) -> None:
    """The target of an external link edited, its times put back."""
    target = scene.dataset("target.h5", 1)
    with h5py.File(scene.path("a.h5"), "w") as handle:
        handle[DATASET] = h5py.ExternalLink("target.h5", DATASET)
    _deceive(scene, target)


def twin(scene: Scene) -> None:
    """Replaced by a twin of equal size and times."""
    data, other = scene.dataset("a.h5", 1), scene.dataset("b.h5", 2)
    scene.ready()
    must(scene.count("a.h5"), 1)
    times = data.stat()
    if other.stat().st_size != times.st_size:
        raise WrongError("the twin has another size")
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(data)
    must(scene.count("a.h5"), 2, "scan")


def twin_copied_over(scene: Scene) -> None:
    """Overwritten with a twin's bytes, times kept: the same inode."""
    data, other = scene.dataset("a.h5", 1), scene.dataset("b.h5", 2)
    scene.ready()
    must(scene.count("a.h5"), 1)
    times = data.stat()
    data.write_bytes(other.read_bytes())
    os.utime(data, ns=(times.st_atime_ns, times.st_mtime_ns))
    must(scene.count("a.h5"), 2, "scan")


def touched(scene: Scene) -> None:
    """Touched, and its mode changed: still the cached counts."""
    data = scene.dataset("a.h5", 1)
    scene.ready()
    must(scene.count("a.h5"), 1, "scan")
    data.touch()
    must(scene.count("a.h5"), 1, "cache")
    data.chmod(0o644)
    must(scene.count("a.h5"), 1, "cache")


def copied(scene: Scene) -> None:
    """Copied with its cached file, then the copy edited."""
    scene.dataset("a.h5", 1)
    scene.ready()
    must(scene.count("a.h5"), 1, "scan")
    scene.path("copy").mkdir()
    for name in scene.files():
        shutil.copy2(scene.path(name), scene.path("copy"))
    must(scene.count("copy/a.h5"), 1, "cache")
    relabel(scene.path("copy/a.h5"), 1, 2)
    must(scene.count("copy/a.h5"), 2, "scan")
    must(scene.count("a.h5"), 1, "cache")


def link_turned(scene: Scene) -> None:
    """A symbolic link turned from one file to another."""
    scene.dataset("one.h5", 1)
    scene.dataset("two.h5", 2)
    scene.path("a.h5").symlink_to("one.h5")
    scene.ready()
    must(scene.count("a.h5"), 1)
    scene.path("a.h5").unlink()
    scene.path("a.h5").symlink_to("two.h5")
    must(scene.count("a.h5"), 2, "scan")


def other_folder(scene: Scene) -> None:
    """External raw files that are named relative to the working folder, from two of these."""
    with h5py.File(scene.path("a.h5"), "w") as handle:
        handle.create_dataset(DATASET, SHAPE, "u1", external=[("cells.raw", 0, CELLS)])
    folders = [scene.path("one"), scene.path("two")]
    for label, folder in enumerate(folders, 1):
        folder.mkdir()
        (folder / "cells.raw").write_bytes(bytes([label]) * CELLS)
    scene.ready()
    for _ in range(2):
        for label, folder in enumerate(folders, 1):
            must(scene.count("a.h5", folder=str(folder)), label)


def alike_names(scene: Scene) -> None:
    """Datasets whose names a file name cannot tell apart."""
    names = {"x/y": 1, "x.y": 2, "x/y/": 1}
    for name in ("x/y", "x.y"):
        scene.dataset("a.h5", names[name], name)
    scene.ready()
    for _ in range(2):
        for name, label in names.items():
            must(scene.count("a.h5", dataset=name.strip("/")), label)


def deleted(scene: Scene) -> None:
    """Deleted: an error, not the cached counts."""
    data = scene.dataset("a.h5", 1)
    scene.ready()
    must(scene.count("a.h5"), 1)
    data.unlink()
    must_fail(scene.count("a.h5"), "does not exist")


def edited_during_scan(scene: Scene) -> None:
    """Edited in place while it is scanned, times put back, six times over: never believed by the next run."""
    data = Slow.write(scene.path("a.h5"), 2000)
    scene.ready()
    whole = scene.count("a.h5").seconds
    with ThreadPoolExecutor(1) as pool:
        for number in range(6):
            data.edit()
            running = pool.submit(scene.count, "a.h5")
            time.sleep(whole * (number + 0.5) / 6)
            data.edit()
            first = running.result()
            if first.end != "counts" or first.counts not in data.counts:
                raise WrongError(f"edit {number}: {first.end} {first.counts or first.text}")
            second = scene.count("a.h5")
            if second.counts != data.want:
                raise WrongError(f"edit {number}: the next run has {second.counts} from the {second.source}")


def _virtual(scene: Scene, source: Path) -> None:
    layout = h5py.VirtualLayout(SHAPE, "u1")
    layout[...] = h5py.VirtualSource(str(source), DATASET, SHAPE)
    with h5py.File(scene.path("a.h5"), "w") as handle:
        handle.create_virtual_dataset(DATASET, layout)


def _deceive(scene: Scene, file: Path) -> None:
    """Edit the file that holds the cells, 1 in all of them, between two counts of the main one."""
    scene.ready()
    must(scene.count("a.h5"), 1, "scan")
    must(scene.count("a.h5"), 1)
    relabel(file, 1, 2)
    must(scene.count("a.h5"), 2, "scan")
    must(scene.count("a.h5"), 2)


EDITS: tuple[Callable[[Scene], None], ...] = (
    edited, raw_file_edited, source_edited, source_arrives, target_edited, twin, twin_copied_over, touched, copied,
    link_turned, other_folder, alike_names, deleted, edited_during_scan,
)  # fmt: skip
