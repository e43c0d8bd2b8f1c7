"""Builds and loads the C and C++ sources of the package. The user's cache folder keeps each library after its build.

The name of a library holds a digest of everything that decides its content: the source, the compiler, the flags and the
processor (`-march=native` compiles for it). Size and modification time stand for the compiler's version, because a
look-up must not start the compiler. One process builds at a time; the others wait and load the same file.

A library is code that runs with the user's rights. So the folder must belong to the user, nobody else may write to it,
and the file must have the digest that was stored beside it. Without such a folder the library is built in a temporary
folder, for this process only.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import platformdirs

_log = logging.getLogger("vaefit")

_WAIT = 600.0
"""Longest wait in seconds for the build of another process; after it, this process builds in a temporary folder."""
_PROCESSOR = {
    "vendor_id", "cpu family", "model", "model name", "stepping", "flags",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features",
}  # fmt: skip
"""Lines of /proc/cpuinfo that name the processor and its features; the other lines change from read to read."""

_one_at_a_time = threading.Lock()
_loaded: dict[tuple[Path, str], Library] = {}


class BuildError(RuntimeError):
    """A source that cannot be built or loaded on this machine."""


@dataclass(frozen=True)
class NativeCode:
    """A source file and the command that compiles it to a shared library."""

    source: Path
    compiler: tuple[str, ...]
    flags: tuple[str, ...]
    longest: float = 120.0
    """Seconds after which the compiler is stopped."""


@dataclass(frozen=True)
class Library:
    """A loaded library and its origin."""

    code: ctypes.CDLL
    file: Path | None
    """The kept file; None after a build in a temporary folder."""
    seconds: float | None
    """Duration of the build; None where an earlier call built it."""
    not_kept: str | None = None
    """The reason for a build in a temporary folder."""


def native_folder() -> Path:
    """Return the folder of the built libraries, in the user's cache folder; it may not exist yet."""
    return platformdirs.user_cache_path("vaefit", appauthor=False) / "native"


def find_compiler(variable: str, programs: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the command in the environment variable, else the first program on the PATH; None where there is none.

    Raises ValueError where the variable holds an unclosed quotation.
    """
    return _find(os.environ.get(variable, ""), os.environ.get("PATH", ""), programs)


@cache  # the loss calls this at every step, and a search takes as long as the loss
def _find(named: str, path: str, programs: tuple[str, ...]) -> tuple[str, ...] | None:
    words = tuple(shlex.split(named))
    if words:
        return words if shutil.which(words[0], path=path) else None
    return next(((name,) for name in programs if shutil.which(name, path=path)), None)


def is_enabled(code: NativeCode) -> bool:
    """True where `load_library` built this very library with `enable` and the folder still holds it. Starts nothing."""
    folder = native_folder()
    file = folder / library_name(code)
    return file.with_suffix(".enabled").is_file() and file.is_file() and _obstacle(folder) is None


def load_library(code: NativeCode, enable: bool = False) -> Library:
    """Load the library of `code`; build it first where no intact file is kept. Threads and processes may call it.

    With `enable`, `is_enabled` is True from then on. Raises BuildError with the compiler's own words where the build
    fails, where the library cannot be loaded, or where it should be enabled and cannot be kept.
    """
    with _one_at_a_time:
        folder, name = native_folder(), library_name(code)
        library = _loaded.get((folder, name)) or _load_kept(folder / name) or _build(code, folder / name)
        _loaded[folder, name] = replace(library, seconds=None)
        if enable and library.file is None:
            raise BuildError(f"the built library cannot be kept: {library.not_kept}")
        if enable:
            (folder / name).with_suffix(".enabled").touch()
        return library


def library_name(code: NativeCode) -> str:
    """Return the file name of the library: the source's name and a digest of everything that decides its content."""
    programs = [Path(found).resolve() for word in code.compiler if (found := shutil.which(word))]
    stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in programs]
    parts = (code.source.read_bytes(), code.compiler, code.flags, stamps, _processor())
    return f"{code.source.stem}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}.so"


@cache
def _processor() -> tuple[str, ...]:
    """Return the name and the features of the processor."""
    system = (sys.platform, platform.machine())
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as stream:
            first = iter(lambda: stream.readline().strip(), "")  # the first processor; a blank line ends it
            return (*system, *(line for line in first if line.partition(":")[0].strip() in _PROCESSOR))
    except OSError:
        return (*system, platform.processor(), platform.node())


def _obstacle(path: Path) -> str | None:
    """Return the reason not to trust a folder or a file in it; None where only this user can write to it."""
    found = path.lstat()
    if found.st_uid != os.geteuid():
        return f"{path} belongs to another user"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{path} is writable by other users"
    return f"{path} is a symbolic link" if stat.S_ISLNK(found.st_mode) else None


def _load_kept(file: Path) -> Library | None:
    """Load a kept library; None where there is no file, or not the one that was built."""
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if (
            digest != file.with_suffix(".sha256").read_text(encoding="ascii")
            or _obstacle(file.parent)
            or _obstacle(file)
        ):
            return None
        return Library(ctypes.CDLL(str(file)), file, None)
    except (OSError, ValueError):
        return None


def _build(code: NativeCode, file: Path) -> Library:
    """Build and keep a library, unless another process has built it meanwhile."""
    try:
        with _locked(file.parent):
            return _load_kept(file) or _build_in(file.parent, code, file)
    except (OSError, NotImplementedError) as error:  # filelock raises the second where the file system has no locks
        obstacle = str(error)
    _log.info(f"{code.source.name} is built for this process only: {obstacle}")
    try:
        return _build_in(Path(tempfile.gettempdir()), code, None, obstacle)
    except OSError as error:
        raise BuildError(str(error)) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make the folder and hold its lock; OSError where that fails or others can write to the folder."""
    from filelock import FileLock

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    obstacle = _obstacle(folder)
    if obstacle is not None:
        raise PermissionError(obstacle)
    with FileLock(folder / "build.lock", timeout=_WAIT):
        yield


def _build_in(folder: Path, code: NativeCode, file: Path | None, not_kept: str | None = None) -> Library:
    """Build in a temporary folder below `folder`, load the library, then move it to `file` if there is one."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="vaefit-", dir=folder) as temporary:
        built = Path(temporary) / f"{code.source.stem}.so"
        _compile(code, built)
        library = ctypes.CDLL(str(built))  # stays loaded when its file goes
        if file is not None:
            built.chmod(0o700)
            digest = built.with_suffix(".sha256")
            digest.write_text(hashlib.sha256(built.read_bytes()).hexdigest(), encoding="ascii")
            for new, kept in ((built, file), (digest, file.with_suffix(".sha256"))):
                new.replace(kept)
    return Library(library, file, time.perf_counter() - start, not_kept)


def _compile(code: NativeCode, out: Path) -> None:
    """Run the compiler; BuildError where it fails or takes too long."""
    command = [*code.compiler, *code.flags, str(code.source), "-o", str(out)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=code.longest, errors="replace", check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise BuildError(str(error)) from error
    if done.returncode != 0:
        said = next((line.strip() for line in done.stderr.splitlines() if line.strip()), "it said nothing")
        raise BuildError(f"`{shlex.join(code.compiler)}` ended with {done.returncode}: {said}")
