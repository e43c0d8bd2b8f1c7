"""Files from outside: what is no regular file, too large, or elsewhere is an error at once, and never waited for."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from vaefit.cache.regular_file import check_regular, read_regular


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


OTHERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "it is a named pipe, not a regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a regular file"),
    "folder": (Path.mkdir, "it is a folder, not a regular file"),
    "socket": (_socket, "No such device or address"),
    "absent": (lambda path: None, "No such file or directory"),
    "loop": (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    "endless": (lambda path: path.symlink_to("/proc/self/pagemap"), ""),
    "sparse": (lambda path: (path.touch(), os.truncate(path, 1 << 40)), "and at most 1,000 are read"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_only_regular_files_of_a_bounded_size_are_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    make, words = OTHERS[kind]
    make(Path("it"))
    if kind == "endless":
        assert read_regular(Path("it"), 1_000) == b""
        return
    with pytest.raises(OSError, match=words) as caught:
        read_regular(Path("it"), 1_000)
    assert caught.value.filename == "it"


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_what_can_be_no_name_of_a_file_is_an_error_of_the_system(name: str) -> None:
    with pytest.raises(OSError, match="this is no name of a file"):
        check_regular(Path(name))


def test_links_are_followed_within_the_folder_alone(tmp_path: Path) -> None:
    inside, outside = tmp_path / "run", tmp_path / "running"  # a name that begins with that of the folder
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "file").write_bytes(b"some bytes")
    (tmp_path / "link").symlink_to(inside)
    (inside / "near").symlink_to("file")
    (inside / "far").symlink_to(outside / "file")
    (inside / "folder").symlink_to(outside)
    for folder in (inside, tmp_path / "link"):
        assert read_regular(folder / "near", 10, folder) == b"some bytes"
        for name in ("far", "folder/file", "../running/file"):
            with pytest.raises(OSError, match=f"a link that leads out of its folder, to {outside / 'file'}"):
                read_regular(folder / name, 10, folder)
    assert read_regular(inside / "far", 10) == b"some bytes"
