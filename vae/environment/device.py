"""Device, focal loss backend and CPU threads of a run, and the error of a full memory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast, get_args

import torch

from vaefit.cache.errors import require
from vaefit.kernels import Backend, BackendChoice, choose_backend
from vaefit.kernels.cpu.compiled import load
from vaefit.native_build import BuildError

from ..errors import RunError

ONE_THREAD_CELLS = 1 << 15
"""Most cells of a batch that is fitted on one thread. Two threads save a tenth of the whole command's time on an idle
machine, and cost several times as much on a busy one: the threads of a short step mostly wait for one another."""


def choose_device(name: str) -> torch.device:
    """Return the device of that name; `auto` takes the GPU where there is one. RunError where it is not available."""
    known_device(name)
    if name == "cuda" and not torch.cuda.is_available():
        build = "this torch is a CPU build" if torch.version.cuda is None else "torch sees no GPU"
        raise RunError("there is no CUDA device", "--device", f"cuda; {build}", "Use --device cpu, or auto.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def preferred_backend(name: str, device: torch.device) -> tuple[Backend, BackendChoice]:
    """Return the requested backend and the one that runs; RunError where it cannot run."""
    requested = known_backend(name)
    try:
        choice = choose_backend(requested, device)
        if choice.name == "compiled":
            load(torch.float32)  # a failure must come before the count
    except (ValueError, BuildError) as error:
        what, _, do = str(error).partition(". ")
        raise RunError(what, "--backend", name, do) from error
    return requested, choice


@contextmanager
def cpu_threads(wanted: int | None, cells: int) -> Iterator[None]:
    """Set torch's CPU threads, to one for a batch of few cells where `wanted` is None, and restore their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(wanted or (1 if cells <= ONE_THREAD_CELLS else before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def fitting_memory(batch: str) -> Iterator[None]:
    """Raise RunError where a model and its batch, described by `batch`, do not fit into memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if memory_is_full(error):
            do = "Lower --batch-size or --latent-dim."
            raise RunError("the model and the batch do not fit into memory", batch, do=do) from error
        raise


def require_memory(grids: int, shape: tuple[int, ...], classes: int) -> None:
    """Raise RunError, before a grid is read, where labels and logits of a batch alone exceed the machine's memory."""
    if not hasattr(os, "sysconf"):
        return
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    needed = grids * math.prod(shape) * (8 + 4 * classes)  # int64 and float32
    if needed > most:
        batch = f"{grids} grids of {' x '.join(f'{side:,}' for side in shape)}, {classes} classes"
        got = f"{needed / 2**30:,.0f} GiB for its labels and logits, of {most / 2**30:,.0f} GiB"
        raise RunError("the batch does not fit into memory", batch, got, "Lower --batch-size, or crop the grids.")


def memory_is_full(error: BaseException) -> bool:
    """Return True for each of the three ways in which torch reports a full memory."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)


DEVICES = ("auto", "cpu", "cuda")


def known_device(name: str) -> str:
    """Return the name of a device; SettingError for any but `auto`, `cpu` and `cuda`."""
    require(name in DEVICES, "--device", name, f"one of {', '.join(DEVICES)}")
    return name


def known_backend(name: str) -> Backend:
    """Return the backend of that name; SettingError where there is none."""
    require(name in get_args(Backend), "--backend", name, f"one of {', '.join(get_args(Backend))}")
    return cast(Backend, name)
