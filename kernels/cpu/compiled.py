"""The one-pass kernel of the CPU: focal.cpp, built by the C++ compiler of the machine when it is first called.

It reads each logit once and writes each gradient once, and keeps to the first-level cache in between; the counts cost
next to nothing. Opt-in, because it needs a C++ compiler and about a second to build, once a process and pair of dtypes;
new shapes cost nothing. torch.compile was tried first: Inductor needs 8 to 31 seconds for these formulas, and its code
took three times as long at batch 32, and from as long to twice as long on larger shapes.

float16 logits, which few CPUs compute with, and ready predictions go the eager way. Labels are looked at before they
index anything, so nobody may change them while a call runs.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ..checks import cells_that_count, compute_dtype
from ..reduction import Reduction, divisor
from . import eager
from .confusion import empty_tally
from .layout import folded

_LOGITS = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "BFloat16"}
_LABELS = {
    torch.uint8: "uint8_t", torch.uint16: "uint16_t", torch.uint32: "uint32_t", torch.uint64: "uint64_t",
    torch.int8: "int8_t", torch.int16: "int16_t", torch.int32: "int32_t", torch.int64: "int64_t",
}  # fmt: skip
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
_TILE = 1 << 12
"""Logits in a tile: with what is worked in beside them they fit the first-level cache."""
_CHUNK = 64
"""Tiles that one thread takes at a time. The loss is summed by chunks, so that it does not depend on the threads."""


class _Call(ctypes.Structure):
    """The `Call` of focal.cpp."""

    _fields_ = (
        ("logits", ctypes.c_void_p),
        ("labels", ctypes.c_void_p),
        ("weight", ctypes.c_void_p),
        ("gradient", ctypes.c_void_p),
        ("losses", ctypes.c_void_p),
        ("loss", ctypes.c_void_p),
        ("outer", ctypes.c_int64),
        ("classes", ctypes.c_int64),
        ("inner", ctypes.c_int64),
        ("tile", ctypes.c_int64),
        ("chunk", ctypes.c_int64),
        ("logits_strides", ctypes.c_int64 * 3),
        ("gradient_strides", ctypes.c_int64 * 3),
        ("labels_strides", ctypes.c_int64 * 2),
        ("ignore_index", ctypes.c_int64),
        ("divisor", ctypes.c_int64),
        ("gamma", ctypes.c_double),
    )


def focal(
    logits: Tensor,  # (B, C, *)
    targets: Tensor,  # (B, *)
    weight: Tensor | None,  # (C,)
    gamma: float,
    ignore_index: int,
    reduction: Reduction,
    want_gradient: bool,
    want_counts: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Loss, gradient, remainder and tally, as an implementation of `vaefit::focal_loss` gives them."""
    if logits.dtype == torch.float16:
        return eager.focal(logits, targets, weight, gamma, ignore_index, reduction, want_gradient, want_counts)
    library = _library(logits, targets)
    gradient = torch.empty_like(logits) if want_gradient else None
    fold, z, slopes = folded(logits, gradient)
    loss = torch.empty((), dtype=compute_dtype(logits), device=logits.device)
    losses = fold.empty_cells(targets.shape, loss) if reduction == "none" else None
    tally = empty_tally(logits.shape[1], logits.device) if want_counts else None
    weight, labels = None if weight is None else weight.contiguous(), fold.cells(targets)

    call = _call(z, labels, ignore_index, slopes)
    call.loss, call.gamma = loss.data_ptr(), gamma
    if weight is not None:
        call.weight = weight.data_ptr()
    if losses is not None:
        call.losses = losses.data_ptr()
    call.divisor = 0 if reduction == "mean" else divisor(targets, None, reduction)
    _run(library, call, targets, tally)
    return loss if losses is None else losses.contiguous(), gradient, None, tally


def confusion(logits: Tensor, targets: Tensor, ignore_index: int) -> Tensor:
    """Tally (C * C + 1,) of logits (B, C, *) against targets (B, *)."""
    if logits.dtype == torch.float16:
        return eager.confusion(logits, targets, ignore_index)
    library = _library(logits, targets)
    fold, z, _ = folded(logits, None)
    labels = fold.cells(targets)
    tally = empty_tally(logits.shape[1], logits.device)
    _run(library, _call(z, labels, ignore_index), targets, tally)
    return tally


def confusion_ready(predictions: Tensor, targets: Tensor, ignore_index: int, num_classes: int) -> Tensor:
    """Tally (C * C + 1,) of predictions (B, *) against targets (B, *): the eager way, which is one bincount."""
    return eager.confusion_ready(predictions, targets, ignore_index, num_classes)


def is_built() -> bool:
    """The kernel is there for some dtypes, so that nobody has to search for a compiler again."""
    return _build.cache_info().currsize > 0


def obstacle() -> str | None:
    """Why the kernel cannot be built here; None where a compiler is found. Cheap: it starts nothing."""
    if os.name == "nt":
        return "it has not been tried on Windows"
    if _compiler() is not None:
        return None
    named = os.environ.get("CXX")
    if named:
        return f"CXX is {named!r}, which is no program on the PATH"
    return "no C++ compiler is found: neither c++, g++ nor clang++ is a program on the PATH"


def _call(z: Tensor, labels: Tensor, ignore_index: int, slopes: Tensor | None = None) -> _Call:
    """The arguments of a pass that only counts; all tensors, and those whose address is set later, must outlive it."""
    strides = None if slopes is None else slopes.stride()
    call = _Call.from_buffer_copy(_frame(z.shape, z.stride(), labels.stride(), strides))
    call.logits, call.labels, call.ignore_index, call.chunk = z.data_ptr(), labels.data_ptr(), ignore_index, _CHUNK
    if slopes is not None:
        call.gradient = slopes.data_ptr()
    return call


@lru_cache(maxsize=64)
def _frame(
    shape: tuple[int, ...], z: tuple[int, ...], labels: tuple[int, ...], gradient: tuple[int, ...] | None
) -> _Call:
    """What the next step asks for again, of tensors with these strides; to be copied, since threads share it."""
    outer, classes, inner = shape
    return _Call(
        outer=outer,
        classes=classes,
        inner=inner,
        tile=min(256, max(16, _TILE // classes // 16 * 16)),
        logits_strides=z,
        gradient_strides=gradient or (0, 0, 0),
        labels_strides=labels,
    )


def _run(library: ctypes.CDLL, call: _Call, targets: Tensor, tally: Tensor | None) -> None:
    """Write what the call asks for and add the counts to the tally; ValueError where a cell holds no class."""
    arguments, chunks = ctypes.byref(call), -(-call.outer * -(-call.inner // call.tile) // _CHUNK)
    workers = min(torch.get_num_threads(), chunks // 2)
    if workers <= 1:
        kept = library.run_all(arguments, None if tally is None else tally.data_ptr())
    else:
        kept = library.cells_that_count(arguments)
    if kept < 0:
        cells_that_count(targets, call.classes, call.ignore_index)  # finds it again, and raises
    if workers <= 1:
        return
    sums = (ctypes.c_double * chunks)()
    tallies = [None if tally is None else torch.zeros_like(tally) for _ in range(workers)]

    def run(first: int) -> None:
        counts = tallies[first]
        library.run_chunks(arguments, kept, first, workers, sums, None if counts is None else counts.data_ptr())

    with ThreadPoolExecutor(workers) as pool:  # a foreign call lets other threads run
        list(pool.map(run, range(workers)))
    library.add_up(arguments, sums)
    for counts in tallies:
        if tally is not None and counts is not None:
            tally += counts


def _library(logits: Tensor, targets: Tensor) -> ctypes.CDLL:
    """The kernel for tensors of these dtypes; ValueError unless they are on the CPU."""
    if logits.device.type != "cpu":
        raise ValueError(
            f"backend 'compiled' cannot run: tensors are on {logits.device}, and the kernel is one of the CPU. "
            "Use 'auto' or 'eager'."
        )
    return _build(logits.dtype, targets.dtype)


class BuildError(RuntimeError):
    """The kernel cannot be built or loaded here."""


def build() -> None:
    """Build the kernel for float32 logits and int64 labels, unless it is there; BuildError where that fails."""
    _build(torch.float32, torch.int64)


@cache
def _build(logits: torch.dtype, labels: torch.dtype) -> ctypes.CDLL:
    """focal.cpp for a pair of dtypes, for this process alone: a folder to keep it in may serve other machines too."""
    compiler = _compiler()
    if compiler is None:
        raise BuildError(f"backend 'compiled' cannot run: {obstacle()}. Install one, set CXX, or use 'eager'.")
    real = "double" if logits == torch.float64 else "float"
    source = Path(__file__).with_name("focal.cpp")
    with tempfile.TemporaryDirectory(prefix="vaefit-") as folder:
        built = Path(folder) / "focal.so"
        types = (f"-DLOGIT={_LOGITS[logits]}", f"-DREAL={real}", f"-DLABEL={_LABELS[labels]}")
        command = [*compiler, *_FLAGS, *types, str(source), "-o", str(built)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = next((line.strip() for line in done.stderr.splitlines() if line.strip()), "it said nothing")
            raise BuildError(
                f"{source.name} did not build: `{shlex.join(compiler)}` ended with {done.returncode}: {said}. "
                "Set CXX to a compiler of C++17, or use backend='eager'."
            )
        try:
            library = ctypes.CDLL(str(built))  # stays when its file goes
        except OSError as error:
            raise BuildError(
                f"{source.name} was built but cannot be loaded: {error}. "
                "Set TMPDIR to a folder whose files may run, or use backend='eager'."
            ) from error
    library.cells_that_count.argtypes = [ctypes.c_void_p]
    library.cells_that_count.restype = ctypes.c_int64
    library.run_all.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    library.run_all.restype = ctypes.c_int64
    library.run_chunks.argtypes = [ctypes.c_void_p, *(ctypes.c_int64,) * 3, ctypes.c_void_p, ctypes.c_void_p]
    library.run_chunks.restype = None
    library.add_up.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    library.add_up.restype = None
    return library


def _compiler() -> list[str] | None:
    """The command of a C++ compiler: $CXX, else the first that is found."""
    return _found(os.environ.get("CXX", ""), os.environ.get("PATH", ""))


@cache
def _found(named: str, path: str) -> list[str] | None:
    """What `_compiler` gives for these; each call of the loss asks, and a search takes as long as the loss."""
    words = shlex.split(named)
    if words:
        return words if shutil.which(words[0], path=path) else None
    return next(([name] for name in ("c++", "g++", "clang++") if shutil.which(name, path=path)), None)
