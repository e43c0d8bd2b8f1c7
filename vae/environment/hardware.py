"""What this machine and this installation are."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from vaefit.cache.store.counts_file import user_cache_folder

from .memory import free_memory, total_memory
from .version import vaefit_version

PACKAGES = ("torch", "triton", "numpy", "h5py", "typer", "rich", "safetensors", "msgspec", "matplotlib", "pillow")


@dataclass(frozen=True)
class Machine:
    """Versions, processor, memory, GPU and cache folder."""

    versions: dict[str, str | None]
    """Version of each package; None where it is not installed."""
    system: str
    cpu: str
    cores: int
    threads: int
    """CPU threads that torch takes by itself."""
    memory: int | None
    """Bytes of the machine; None where the system does not say."""
    memory_free: int | None
    """Bytes that are free now, or would be if they were asked for."""
    gpu: str | None
    """Name and memory of the GPU; None without one."""
    cache_folder: str
    cache_problem: str | None
    """Why nothing can be written there; None where something can."""
    cache_free: int | None
    """Bytes that are free where the cache folder lies."""

    @classmethod
    def from_system(cls) -> Machine:
        """Look at this machine; an answer that it does not give is None."""
        problem, free = _cache()
        memory, memory_free = total_memory(), free_memory()
        packages = {package: _version(package) for package in PACKAGES}
        return cls(
            versions={"vaefit": vaefit_version(), "python": platform.python_version(), **packages},
            system=platform.platform(),
            cpu=cpu_name(),
            cores=os.cpu_count() or 1,
            threads=torch.get_num_threads(),
            memory=memory,
            memory_free=memory_free,
            gpu=_gpu(),
            cache_folder=str(user_cache_folder()),
            cache_problem=problem,
            cache_free=free,
        )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The name of the processor, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _gpu() -> str | None:
    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(0)
    return f"{found.name}, {found.total_memory / 2**30:.0f} GiB"


def _cache() -> tuple[str | None, int | None]:
    """Why the cache folder cannot be written (None where it can), and the bytes free there."""
    folder = user_cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(b"vaefit")
        return None, shutil.disk_usage(folder).free
    except OSError as error:
        return error.strerror or str(error), None
