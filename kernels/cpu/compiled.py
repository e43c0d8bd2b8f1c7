"""One-pass CPU kernel: focal.cpp, built by the machine's C++ compiler.

It reads each logit once and writes each gradient once, and works in the first-level cache in between; the counts cost
almost nothing. `vaefit-cli doctor --build` builds it and lets `backend="auto"` take it; `backend="compiled"` builds it
on first use. A build takes about a second for each dtype of logits, once a machine (see `vaefit.native_build`). The
other way was torch.compile: Inductor needs 8 to 31 seconds for these formulas, and its code took three times as long at
batch 32, and between the same and twice as long on larger shapes.

float16 logits, which few CPUs compute with, and ready predictions go the eager way. The kernel checks the labels before
it indexes with them, so nobody may change them during a call.
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from vaefit.native_build import BuildError, Library, NativeCode, find_compiler, is_enabled, load_library

from ..checks import FocalResult, FocalSetting, cells_that_count, compute_dtype, divisor
from . import eager
from .blocks import folded
from .confusion import empty_tally

DTYPES = (torch.float32, torch.float64, torch.bfloat16)
"""The dtypes of logits that the kernel takes; each has a library of its own."""
_TYPES = {torch.float32: ("float", "float"), torch.float64: ("double", "double"), torch.bfloat16: ("BFloat16", "float")}
_LABELS = (
    torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16, torch.int32, torch.int64
)  # fmt: skip
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
_COMPILERS = ("c++", "g++", "clang++")
_TILE = 1 << 12
"""Logits in a tile: with what is worked in beside them they fit the first-level cache."""
_CHUNK = 64
"""Tiles that one thread takes at a time. The loss is summed by chunks, so that it does not depend on the threads."""


class _Call(ctypes.Structure):
    """Layout of `Call` in focal.cpp."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("logits", "labels", "weight", "gradient", "losses", "loss")),
        *((name, ctypes.c_int64) for name in ("outer", "classes", "inner", "tile", "chunk")),
        ("logits_strides", ctypes.c_int64 * 3),
        ("gradient_strides", ctypes.c_int64 * 3),
        ("labels_strides", ctypes.c_int64 * 2),
        *((name, ctypes.c_int64) for name in ("label_type", "ignore_index", "divisor")),
        ("gamma", ctypes.c_double),
    )


def focal(logits: Tensor, targets: Tensor, setting: FocalSetting) -> FocalResult:
    """Return loss, gradient, remainder and tally; see `FocalResult`."""
    if logits.dtype == torch.float16:
        return eager.focal(logits, targets, setting)
    weight, gamma, ignore_index, reduction, want_gradient, want_counts = setting
    library = _library(logits)
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
    """Return the tally (C * C + 1,) of logits (B, C, *) against targets (B, *)."""
    if logits.dtype == torch.float16:
        return eager.confusion(logits, targets, ignore_index)
    library = _library(logits)
    fold, z, _ = folded(logits, None)
    labels = fold.cells(targets)
    tally = empty_tally(logits.shape[1], logits.device)
    _run(library, _call(z, labels, ignore_index), targets, tally)
    return tally


confusion_ready = eager.confusion_ready  # one bincount, which C++ would not speed up


def obstacle() -> str | None:
    """Return the reason why the kernel cannot be built here; None where a compiler is found. Starts nothing."""
    if os.name == "nt":
        return "it has not been tried on Windows"
    if find_compiler("CXX", _COMPILERS) is not None:
        return None
    named = os.environ.get("CXX")
    if named:
        return f"CXX is {named!r}, which is no program on the PATH"
    return "no C++ compiler is found: neither c++, g++ nor clang++ is a program on the PATH"


def _call(z: Tensor, labels: Tensor, ignore_index: int, slopes: Tensor | None = None) -> _Call:
    """Return the arguments of a pass that only counts. All tensors, also those set later, must outlive the call."""
    strides = None if slopes is None else slopes.stride()
    call = _Call.from_buffer_copy(_frame(z.shape, z.stride(), labels.stride(), strides))
    call.logits, call.labels, call.ignore_index, call.chunk = z.data_ptr(), labels.data_ptr(), ignore_index, _CHUNK
    call.label_type = _LABELS.index(labels.dtype)
    if slopes is not None:
        call.gradient = slopes.data_ptr()
    return call


@lru_cache(maxsize=64)
def _frame(
    shape: tuple[int, ...], z: tuple[int, ...], labels: tuple[int, ...], gradient: tuple[int, ...] | None
) -> _Call:
    """Return the arguments that tensors of these strides share, step after step. Copy it: threads share it."""
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
    """Write the wanted outputs and add the counts to the tally; ValueError where a cell holds no class."""
    arguments, chunks = ctypes.byref(call), -(-call.outer * -(-call.inner // call.tile) // _CHUNK)
    workers = min(torch.get_num_threads(), chunks // 2)
    if workers <= 1:
        kept = library.run_all(arguments, None if tally is None else tally.data_ptr())
    else:
        kept = library.cells_that_count(arguments)
    if kept < 0:
        cells_that_count(targets, call.classes, call.ignore_index)  # finds the label again, and raises
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


def _library(logits: Tensor) -> ctypes.CDLL:
    """Return the kernel for the logits' dtype; ValueError unless they are on the CPU."""
    if logits.device.type != "cpu":
        raise ValueError(
            f"backend 'compiled' cannot run: tensors are on {logits.device}, and the kernel is one of the CPU. "
            "Use 'auto' or 'eager'."
        )
    return load(logits.dtype)


def build(dtype: torch.dtype = torch.float32, enable: bool = False) -> Library:
    """Build the library for logits of `dtype` and load it; a kept one is only loaded.

    With `enable`, `backend="auto"` takes it from then on, in this process too. Raises BuildError where that fails.
    """
    compiler = find_compiler("CXX", _COMPILERS)
    if compiler is None or os.name == "nt":
        raise BuildError(f"backend 'compiled' cannot run: {obstacle()}. Install one, set CXX, or use 'eager'.")
    try:
        library = load_library(_native_code(dtype, compiler), enable)
    except BuildError as error:
        raise BuildError(
            f"focal.cpp did not build: {error}. Set CXX to a compiler of C++17, or use backend='eager'."
        ) from error
    code = library.code
    code.cells_that_count.argtypes = [ctypes.c_void_p]
    code.cells_that_count.restype = ctypes.c_int64
    code.run_all.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    code.run_all.restype = ctypes.c_int64
    code.run_chunks.argtypes = [ctypes.c_void_p, *(ctypes.c_int64,) * 3, ctypes.c_void_p, ctypes.c_void_p]
    code.run_chunks.restype = None
    code.add_up.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    code.add_up.restype = None
    enabled.cache_clear()
    return library


@cache
def load(dtype: torch.dtype) -> ctypes.CDLL:
    """Return the library for logits of `dtype`, loaded once a process. Raises BuildError as `build` does."""
    return build(dtype).code


@cache
def enabled(dtype: torch.dtype) -> bool:
    """True where `vaefit-cli doctor --build` built the kernel for logits of `dtype`, with the compiler of today.

    The answer holds for the whole process, so that no run changes its backend halfway.
    """
    if dtype not in DTYPES or os.name == "nt":
        return False
    with suppress(ValueError):  # a CXX that cannot be read concerns only those who ask for this backend
        compiler = find_compiler("CXX", _COMPILERS)
        return compiler is not None and is_enabled(_native_code(dtype, compiler))
    return False


def _native_code(dtype: torch.dtype, compiler: tuple[str, ...]) -> NativeCode:
    logit, real = _TYPES[dtype]
    source = Path(__file__).with_name("focal.cpp")
    return NativeCode(source, compiler, (*_FLAGS, f"-DLOGIT={logit}", f"-DREAL={real}"))
