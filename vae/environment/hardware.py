"""Machine and installation of a run: memory, processor, GPU, versions and cache folder."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "triton", "numpy", "h5py", "typer", "rich", "safetensors", "msgspec", "matplotlib", "pillow")
_MEMINFO = Path("/proc/meminfo")


def vaefit_version() -> str:
    """Return the installed version; `unknown` where vaefit runs from a checkout that is not installed."""
    return _version("vaefit") or "unknown"


def total_memory() -> int | None:
    """Return the bytes of the machine; None where the system does not report them."""
    return _pages("SC_PHYS_PAGES")


def free_memory() -> int | None:
    """Return the bytes that can be allocated now; None where the system does not report them.

    On Linux this includes the memory of the file cache: without it, a machine that has read large files looks full.
    """
    with suppress(OSError):
        found = re.search(r"^MemAvailable: +(\d+) kB$", _MEMINFO.read_text(encoding="ascii"), re.MULTILINE)
        if found is not None:
            return int(found[1]) << 10
    return _pages("SC_AVPHYS_PAGES")


def _pages(name: str) -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf(name)
    except (AttributeError, ValueError, OSError):
        return None


@dataclass(frozen=True)
class Machine:
    """Versions, processor, memory, GPU and cache folder."""

    versions: dict[str, str | None]
    """Version of each package; None where it is not installed."""
    system: str
    cpu: str
    cores: int
    threads: int
    """CPU threads of torch by default."""
    memory: int | None
    """Bytes of the machine; None where the system does not report them."""
    memory_free: int | None
    """Bytes that can be allocated now."""
    gpu: str | None
    """Name and memory of the GPU; None without one."""
    cache_folder: str
    cache_problem: str | None
    """Reason why the folder cannot be written; None where it can."""
    cache_free: int | None
    """Free bytes on the disk of the cache folder."""

    @classmethod
    def from_system(cls) -> Machine:
        """Describe this machine; a fact that the system does not report is None."""
        import torch

        from vaefit.cache.store.counts_file import user_cache_folder

        folder = user_cache_folder()
        problem, free = _cache(folder)
        gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
        packages = {package: _version(package) for package in PACKAGES}
        return cls(
            versions={"vaefit": vaefit_version(), "python": platform.python_version(), **packages},
            system=platform.platform(),
            cpu=cpu_name(),
            cores=os.cpu_count() or 1,
            threads=torch.get_num_threads(),
            memory=total_memory(),
            memory_free=free_memory(),
            gpu=None if gpu is None else f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB",
            cache_folder=str(folder),
            cache_problem=problem,
            cache_free=free,
        )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cpu_name() -> str:
    """Return the name of the processor, or its architecture where the system does not report the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _cache(folder: Path) -> tuple[str | None, int | None]:
    """Return the reason why the folder cannot be written (None where it can), and its free bytes."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(b"vaefit")
        return None, shutil.disk_usage(folder).free
    except OSError as error:
        return error.strerror or str(error), None
