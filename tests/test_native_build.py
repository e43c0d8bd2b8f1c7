"""Building native code once a machine: many callers at once, damaged files, other keys, folders not to be trusted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from vaefit import native_build
from vaefit.native_build import BuildError, NativeCode, is_enabled, library_name, load_library

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="needs a C compiler, on Linux"
)


@pytest.fixture
def code(tmp_path: Path, user_folder: Path) -> NativeCode:
    """A source whose function `answer` gives 42, and a compiler that adds a line to `builds` at each build."""
    source, wrapper = tmp_path / "answer.c", tmp_path / "compiler"
    source.write_text("int answer(void) { return 42; }\n")
    wrapper.write_text(f'#!/bin/sh\necho built >> {tmp_path / "builds"}\nsleep 0.3\nexec cc "$@"\n')
    wrapper.chmod(0o700)
    return NativeCode(source, (str(wrapper),), ("-shared", "-fPIC"))


def builds(code: NativeCode) -> int:
    record = code.source.with_name("builds")
    return len(record.read_text().splitlines()) if record.exists() else 0


def forget() -> None:
    """Let this process load from the folder again."""
    native_build._loaded.clear()


def kept(code: NativeCode) -> Path:
    return native_build.native_folder() / library_name(code)


PROCESS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from vaefit.native_build import NativeCode, load_library
code = NativeCode(Path(sys.argv[1]), (sys.argv[2],), ("-shared", "-fPIC"))
sys.stdin.readline()
with ThreadPoolExecutor(6) as pool:
    print(*(library.code.answer() for library in pool.map(lambda _: load_library(code), range(6))))
print("torch" in sys.modules)
"""


def test_threads_and_processes_at_once_build_once(code: NativeCode) -> None:
    command = [sys.executable, "-c", PROCESS, str(code.source), *code.compiler]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(4)]  # type: ignore[call-overload]
    start = threading.Barrier(25)

    def answer(_: int) -> int:
        start.wait()
        return int(load_library(code).code.answer())

    with ThreadPoolExecutor(24) as pool:
        answers = pool.map(answer, range(24))
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        start.wait()
        assert list(answers) == [42] * 24
    for process in processes:
        out, _ = process.communicate(timeout=60)
        assert out == "42 42 42 42 42 42\nFalse\n"
    assert builds(code) == 1
    assert sorted(file.suffix for file in kept(code).parent.iterdir()) == [".lock", ".sha256", ".so"]


def test_the_folder_and_the_library_are_the_users_alone(code: NativeCode) -> None:
    library = load_library(code)
    assert library.file == kept(code)
    assert library.seconds is not None
    assert library.file.stat().st_mode & 0o777 == 0o700
    assert library.file.parent.stat().st_mode & 0o777 == 0o700
    forget()
    assert load_library(code).seconds is None


@pytest.mark.parametrize("damage", ["torn", "garbage", "empty", "other code", "no digest", "writable by others"])
def test_a_damaged_library_is_built_again(code: NativeCode, damage: str) -> None:
    file = load_library(code).file
    assert file is not None
    content = file.read_bytes()
    if damage == "no digest":
        file.with_suffix(".sha256").unlink()
    elif damage == "writable by others":
        file.chmod(0o777)
    else:
        # a new file: this process has the old one loaded
        file.unlink()
        other = {"torn": content[: len(content) // 2], "garbage": b"\x7fELF" * 999, "empty": b"", "other code": content}
        file.write_bytes(other[damage] + b"\0" * (damage == "other code"))
        file.chmod(0o700)
    forget()
    assert load_library(code).code.answer() == 42
    assert builds(code) == 2
    assert file.stat().st_mode & 0o777 == 0o700
    forget()
    assert load_library(code).seconds is None


def test_everything_that_decides_the_content_is_in_the_name(code: NativeCode, tmp_path: Path) -> None:
    names = [library_name(code), library_name(replace(code, flags=(*code.flags, "-O1")))]
    other = tmp_path / "other"
    shutil.copy2(code.compiler[0], other)
    names.append(library_name(replace(code, compiler=(str(other),))))
    with Path(code.compiler[0]).open("a") as stream:
        stream.write("# another version\n")
    names.append(library_name(code))
    code.source.write_text("int answer(void) { return 43; }\n")
    names.append(library_name(code))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_build, "_processor", lambda: ("another processor",))
        names.append(library_name(code))
    assert len(set(names)) == len(names)
    assert library_name(code) == names[-2]
    assert all(name.startswith("answer-") and name.endswith(".so") for name in names)


def test_the_processor_is_known_by_its_features() -> None:
    native_build._processor.cache_clear()
    found = native_build._processor()
    native_build._processor.cache_clear()
    assert native_build._processor() == found
    assert sum(line.startswith(("flags", "Features")) for line in found) == 1
    assert not any(line.startswith("cpu MHz") for line in found)


@pytest.mark.parametrize("obstacle", ["writable", "linked", "another user", "no folder"])
def test_a_folder_that_cannot_be_trusted_is_not_used(
    code: NativeCode, obstacle: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_library(code)
    folder = kept(code).parent
    wording = f"{folder} belongs to another user"
    if obstacle == "writable":
        folder.chmod(0o770)
        wording = f"{folder} is writable by other users"
    elif obstacle == "linked":
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
        wording = f"{folder} is "
    elif obstacle == "another user":
        user = os.geteuid()
        monkeypatch.setattr("os.geteuid", lambda: user + 1)
    else:
        shutil.rmtree(folder)
        folder.write_text("")
        wording = "File exists"
    forget()
    with caplog.at_level("INFO", logger="vaefit"):
        library = load_library(code)
    assert library.code.answer() == 42
    assert library.file is None
    assert wording in str(library.not_kept)
    assert f"answer.c is built for this process only: {library.not_kept}" in caplog.text
    assert load_library(code).code is library.code
    assert builds(code) == 2
    with pytest.raises(BuildError, match="the built library cannot be kept: "):
        load_library(code, enable=True)


def test_a_library_is_enabled_on_request_alone(code: NativeCode) -> None:
    assert not is_enabled(code)
    load_library(code)
    assert not is_enabled(code)
    load_library(code, enable=True)
    assert is_enabled(code)
    assert not is_enabled(replace(code, flags=(*code.flags, "-O1")))
    kept(code).unlink()
    assert not is_enabled(code)
    assert builds(code) == 1


@pytest.mark.parametrize(
    ("script", "longest", "wording"),
    [
        ("raise SystemExit('too old')", 60.0, " ended with 1: too old"),
        ("raise SystemExit(3)", 60.0, " ended with 3: it said nothing"),
        ("import time; time.sleep(9)", 0.5, "timed out after 0.5 seconds"),
        ("pass", 60.0, "cannot open shared object file"),
    ],
)
def test_a_compiler_that_fails_is_quoted(code: NativeCode, script: str, longest: float, wording: str) -> None:
    failing = replace(code, compiler=(sys.executable, "-c", script), longest=longest)
    with pytest.raises(BuildError, match=wording):
        load_library(failing)
    assert not list(kept(failing).parent.glob("*.so"))
    assert load_library(code).code.answer() == 42
