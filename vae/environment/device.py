"""Where a run computes: device, implementation of the loss, threads, and what to say when memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

import torch

from vaefit.cache.errors import SettingError, require
from vaefit.kernels import Backend, BackendChoice, choose_backend
from vaefit.kernels.cpu.compiled import load
from vaefit.native_build import BuildError

from ..errors import RunError

ONE_THREAD_CELLS = 1 << 15
"""A batch of up to this many cells is fitted on one thread. Two save a tenth of the whole command's time on an idle
machine, and cost several times as much on a busy one: the threads of a short step mostly wait for one another."""


def choose_device(name: str) -> torch.device:
    """`auto` takes the GPU where there is one; RunError where the device asked for is not there."""
    known_device(name)
    if name == "cuda" and not torch.cuda.is_available():
        build = "this torch is a CPU build" if torch.version.cuda is None else "torch sees no GPU"
        raise RunError("there is no CUDA device", "--device", f"cuda; {build}", "Use --device cpu, or auto.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def preferred_backend(name: str, device: torch.device) -> tuple[Backend, BackendChoice]:
    """The backend asked for and the one that runs; RunError where it cannot."""
    asked = known_backend(name)
    try:
        choice = choose_backend(asked, device)
        if choice.name == "compiled":
            load(torch.float32)  # before anything is counted
    except (ValueError, BuildError) as error:
        what, _, do = str(error).partition(". ")
        raise RunError(what, "--backend", name, do) from error
    return asked, choice


@contextmanager
def cpu_threads(wanted: int | None, cells: int) -> Iterator[None]:
    """Run with the threads asked for, or with what suits a batch of so many cells, and put torch's number back."""
    before = torch.get_num_threads()
    torch.set_num_threads(wanted or (1 if cells <= ONE_THREAD_CELLS else before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def reproducible() -> Iterator[None]:
    """Have cuDNN choose no algorithm by its time, and none that adds up in another order at each call."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before


@contextmanager
def fitting_memory(what: str) -> Iterator[None]:
    """Raise the RunError of a model and `what`, its batch, that do not fit into memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # torch tells of a full memory in three ways
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error):
            raise RunError(
                "the model and the batch do not fit into memory", what, do="Lower --batch-size or --latent-dim."
            ) from error
        raise


DEVICES = ("auto", "cpu", "cuda")


def known_device(name: str) -> str:
    """The name of a device as it is; SettingError for any but `auto`, `cpu` and `cuda`."""
    require(name in DEVICES, "--device", name, f"one of {', '.join(DEVICES)}")
    return name


def known_backend(name: str) -> Backend:
    """The backend of that name; SettingError where there is none."""
    found: Backend | None = next((word for word in get_args(Backend) if word == name), None)
    if found is None:
        raise SettingError("the value cannot be used", "--backend", name, f"Use one of {', '.join(get_args(Backend))}.")
    return found
