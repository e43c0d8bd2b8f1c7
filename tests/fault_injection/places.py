"""Places that cannot be written, and files that are not what their name says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.fault_injection.sandbox import Forks
from tests.fault_injection.scene import Scene, WrongError, must, must_fail
from tests.fault_injection.task import IGNORED

NOBODY = 65534
_HOLD = """
import sys, h5py
with h5py.File(sys.argv[1], "r+") as handle:
    print("open", flush=True)
    sys.stdin.readline()
"""
_ON_FULL_DISK = """
mount -t tmpfs -o size=256k,mode=777 none "$1" && cp "$2" "$1/a.h5" || exit 9
dd if=/dev/zero of="$1/filling" bs=1k 2>/dev/null
disk=$1; shift 2
"$@"
find "$disk" -type f > "$disk.listing"
"""
"""Run in a mount namespace of its own: a small disk with a copy of the data, filled up; then the command."""


def open_for_writing(scene: Scene) -> None:
    """Open for writing in another process: a clear error; closed: counts."""
    data = scene.dataset("a.h5", 1)
    command = [sys.executable, "-c", _HOLD, str(data)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        must_fail(scene.count("a.h5"), "open for writing")
        holder.communicate("\n")
    must(scene.count("a.h5"), 1, "scan")


def read_only_folder(scene: Scene) -> None:
    """A folder without write permission, as another user: cached in the user's own folder."""
    scene.dataset("a.h5", 1)
    home = _home(scene, 0o777)
    with _as_user(scene, home) as count:
        must(count(), 1, "scan")
        must(count(), 1, "cache")
    if scene.cached():
        raise WrongError(f"written after all: {scene.cached()}")


def nothing_writable(scene: Scene) -> None:
    """The cached file fits into no folder: right counts, and a warning."""
    scene.dataset("a.h5", 1)
    home = _home(scene, 0o555)
    with _as_user(scene, home) as count:
        must(count(), 1, "scan", "could not be cached")
        must(count(), 1, "scan", "could not be cached")


def unreadable(scene: Scene) -> None:
    """The dataset without read permission, as another user: a clear error, though it is cached."""
    data = scene.dataset("a.h5", 1)
    must(scene.count("a.h5"), 1)
    data.chmod(0)
    with _as_user(scene, _home(scene, 0o777)) as count:
        report = count()
        if report.end == "counts":
            must(report, 1)  # what the cached file says is as readable as ever
        else:
            must_fail(report, "cannot be read")


def full_disk(scene: Scene) -> None:
    """A disk without a byte left: right counts, a warning, and no file."""
    disk = scene.path("disk")
    disk.mkdir()
    data = scene.dataset("data.h5", 1)
    before = ["unshare", "-rm", "sh", "-c", _ON_FULL_DISK, "sh", str(disk), str(data)]
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        return file_too_long(scene)  # no namespaces here: a limit of the file's length is the next best
    with Forks(disk / "home", before) as forks:
        on_disk = replace(scene, forks=forks)
        must(on_disk.count("disk/a.h5"), 1, "scan", "could not be cached")
        must(on_disk.count("disk/a.h5"), 1, "scan", "could not be cached")
    left = sorted(Path(line).name for line in Path(f"{disk}.listing").read_text().splitlines())
    if left != ["a.h5", "filling"]:
        raise WrongError(f"left behind: {left}")
    return None


def file_too_long(scene: Scene) -> None:
    """Writes that fail half-way: right counts, a warning, and no file."""
    scene.dataset("a.h5", 1)
    must(scene.count("a.h5", file_bytes=100), 1, "scan", "could not be cached")
    if scene.files() != ["a.h5"]:
        raise WrongError(f"left behind: {scene.files()}")
    must(scene.count("a.h5"), 1, "scan")
    must(scene.count("a.h5", file_bytes=100), 1, "cache")


def cached_is_a_folder(scene: Scene) -> None:
    """Folders where the cached and the partial file belong: counts, cached elsewhere or not."""
    scene.dataset("a.h5", 1)
    must(scene.count("a.h5"), 1, "scan")
    (cached,) = scene.cached()
    cached.unlink()
    cached.mkdir()
    (cached / "inner").write_text("x")
    for name in (f".{cached.name}", f".{cached.name.replace('.json', '.partial.json')}"):
        scene.path(name).mkdir()
    must(scene.count("a.h5"), 1, "scan")
    must(scene.count("a.h5"), 1)


def cached_of_another(scene: Scene) -> None:
    """Cached files of another dataset of the same size, put in the place of this one's."""
    scene.dataset("a.h5", 1)
    scene.dataset("b.h5", 2)
    scene.ready()
    must(scene.count("a.h5"), 1, "scan")
    must(scene.count("b.h5"), 2, "scan")
    first, second = scene.cached()
    shutil.copy2(second, first)
    must(scene.count("a.h5"), 1, "scan")
    must(scene.count("a.h5"), 1, "cache")


def cached_is_damaged(scene: Scene) -> None:
    """Cached files cut, emptied, changed by a digit, nested without end, of another schema, or no JSON at all."""
    scene.dataset("a.h5", 1)
    scene.ready()
    must(scene.count("a.h5"), 1, "scan")
    (cached,) = scene.cached()
    whole = cached.read_text()
    body: dict[str, Any] = json.loads(whole)
    wrong = [
        whole[: len(whole) // 2], "", whole.replace("60", "61"), "[" * 100_000, "\0" * len(whole), "null", "[]", "{}",
        json.dumps({**body, "checksum": None}), '{"schema": 1e999}', "\xed\xa0\x80", "1" * 5000,
        json.dumps(dict.fromkeys(body)), json.dumps({"schema": body["schema"]}),
    ]  # fmt: skip
    for text in wrong:
        cached.write_text(text, encoding="latin1")
        must(scene.count("a.h5"), 1, "scan", IGNORED)
        must(scene.count("a.h5"), 1, "cache")
    family = body["schema"].rpartition("/")[0]
    for version in ("0", "1", "99", "x"):
        cached.write_text(json.dumps({**body, "schema": f"{family}/{version}"}))
        must(scene.count("a.h5"), 1, warning=IGNORED)
        must(scene.count("a.h5"), 1)


def data_is_a_fifo(scene: Scene) -> None:
    """A pipe, a folder and a loop of links in the place of the data: clear errors, none waits."""
    os.mkfifo(scene.path("a.h5"))
    must_fail(scene.count("a.h5", wall_s=20.0), "a.h5")
    scene.path("b.h5").mkdir()
    must_fail(scene.count("b.h5"), "folder")
    scene.path("c.h5").symlink_to("c.h5")
    must_fail(scene.count("c.h5"), "c.h5")


class _as_user:  # noqa: N801  reads as what it does
    """Counting as a user to whom permissions apply, with that cache folder, in a scene that is closed to writing."""

    def __init__(self, scene: Scene, home: Path) -> None:
        self._scene, self._forks = scene, Forks(home)

    def __enter__(self) -> Callable[[], Any]:
        scene = replace(self._scene, forks=self._forks.__enter__())
        scene.folder.chmod(0o555)
        user = NOBODY if os.geteuid() == 0 else None
        return lambda: scene.count("a.h5", user=user)

    def __exit__(self, *error: Any) -> None:
        self._scene.folder.chmod(0o755)
        self._forks.__exit__(*error)


def _home(scene: Scene, mode: int) -> Path:
    home = scene.path("home")
    home.mkdir()
    home.chmod(mode)
    return home


PLACES: tuple[Callable[[Scene], None], ...] = (
    open_for_writing, read_only_folder, nothing_writable, unreadable, full_disk, file_too_long, cached_is_a_folder,
    cached_of_another, cached_is_damaged, data_is_a_fifo,
)  # fmt: skip
