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
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from . import eager
from .arguments import cells_that_count, compute_dtype
from .layout import Fold, folded
from .reduction import Reduction, divisor
from .tally import empty_tally

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
        ("outer", ctypes.c_int64),
        ("classes", ctypes.c_int64),
        ("inner", ctypes.c_int64),
        ("tile", ctypes.c_int64),
        ("logits_strides", ctypes.c_int64 * 3),
        ("gradient_strides", ctypes.c_int64 * 3),
        ("labels_strides", ctypes.c_int64 * 2),
        ("ignore_index", ctypes.c_int64),
        ("gamma", ctypes.c_double),
        ("scale", ctypes.c_double),
        ("want_loss", ctypes.c_int32),
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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss, gradient, remainder and tally, as the operator `vaefit::focal_loss` defines them."""
    if logits.dtype == torch.float16:
        return eager.focal(logits, targets, weight, gamma, ignore_index, reduction, want_gradient, want_counts)
    library = _library(logits, targets)
    gradient = torch.empty_like(logits) if want_gradient else None
    fold, z, slopes = folded(logits, gradient)
    one = torch.ones((), dtype=compute_dtype(logits), device=logits.device)
    losses = fold.empty_cells(targets.shape, one) if reduction == "none" else None
    tally = empty_tally(logits.shape[1] if want_counts else None, logits.device)
    weight, labels = None if weight is None else weight.contiguous(), fold.cells(targets)

    call = _call(fold, z, labels, ignore_index)
    kept = _kept(library, call, targets)
    call.weight, call.losses = _address(weight), _address(losses)
    call.gamma, call.want_loss = gamma, 1
    call.scale = 1.0 / (max(kept, 1) if reduction == "mean" else divisor(targets, None, reduction))
    if slopes is not None:
        call.gradient = slopes.data_ptr()
        call.gradient_strides[:] = slopes.stride()
    total = _run(library, call, tally)
    loss = torch.full_like(one, total) if losses is None else losses.contiguous()
    return loss, logits.new_empty(0) if gradient is None else gradient, one, tally


def confusion(logits: Tensor, targets: Tensor, ignore_index: int) -> Tensor:
    """Tally (C * C + 1,) of logits (B, C, *) against targets (B, *)."""
    if logits.dtype == torch.float16:
        return eager.confusion(logits, targets, ignore_index)
    library = _library(logits, targets)
    fold, z, _ = folded(logits, None)
    labels = fold.cells(targets)
    call = _call(fold, z, labels, ignore_index)
    _kept(library, call, targets)
    tally = empty_tally(logits.shape[1], logits.device)
    _run(library, call, tally)
    return tally


def confusion_ready(predictions: Tensor, targets: Tensor, ignore_index: int, num_classes: int) -> Tensor:
    """Tally (C * C + 1,) of predictions (B, *) against targets (B, *): the eager way, which is one bincount."""
    return eager.confusion_ready(predictions, targets, ignore_index, num_classes)


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


def _call(fold: Fold, z: Tensor, labels: Tensor, ignore_index: int) -> _Call:
    """The arguments of a pass that only counts; both tensors, and all whose address is set later, must outlive it."""
    return _Call(
        logits=z.data_ptr(),
        labels=labels.data_ptr(),
        outer=fold.outer,
        classes=fold.classes,
        inner=fold.inner,
        tile=min(256, max(16, _TILE // fold.classes // 16 * 16)),
        logits_strides=z.stride(),
        labels_strides=labels.stride(),
        ignore_index=ignore_index,
    )


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _kept(library: ctypes.CDLL, call: _Call, targets: Tensor) -> int:
    """How many cells are not ignored; ValueError where one of them holds no class."""
    kept = int(library.cells_that_count(ctypes.byref(call)))
    if kept < 0:
        cells_that_count(targets, call.classes, call.ignore_index)  # finds it again, and raises
    return kept


def _run(library: ctypes.CDLL, call: _Call, tally: Tensor) -> float:
    """The sum of the loss; adds the counts to the tally, unless that is empty."""
    tiles = call.outer * -(-call.inner // call.tile)
    chunks = range(0, tiles, _CHUNK)

    def run(first: int, counts: Tensor) -> float:
        last, address = min(first + _CHUNK, tiles), counts.data_ptr() if counts.numel() else None
        return float(library.run_tiles(ctypes.byref(call), first, last, address))

    workers = min(torch.get_num_threads(), len(chunks) // 2)
    if workers <= 1:
        return sum(run(first, tally) for first in chunks)
    tallies = [tally, *(torch.zeros_like(tally) for _ in range(workers - 1))]
    with ThreadPoolExecutor(workers) as pool:  # a foreign call lets other threads run
        parts = list(
            pool.map(lambda worker: [run(first, tallies[worker]) for first in chunks[worker::workers]], range(workers))
        )
    for other in tallies[1:]:
        tally += other
    return sum(parts[chunk % workers][chunk // workers] for chunk in range(len(chunks)))


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
    library.run_tiles.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    library.run_tiles.restype = ctypes.c_double
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
