"""Choice of the implementation that runs, with the reason; no other module chooses."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from torch import Tensor

OLDEST_TRITON = (3, 3)
"""The version that torch 2.7 brings; with torch 2.6 the eager implementation runs."""

Backend = Literal["auto", "triton", "compiled", "eager", "reference"]
_BACKENDS = get_args(Backend)


@dataclass(frozen=True)
class BackendChoice:
    """Name of an implementation and the reason for it; `str()` gives the line of a run header."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


_ASKED_FOR = {name: BackendChoice(name, "asked for") for name in ("eager", "reference", "compiled")}


_EAGER = BackendChoice("eager", "tensors are on cpu")
_COMPILED = BackendChoice("compiled", "tensors are on cpu; built by vaefit-cli doctor --build")


def choose_backend(requested: Backend, place: Tensor | torch.device) -> BackendChoice:
    """Choose the implementation for a tensor of logits or predictions, or for float32 logits on a device.

    Raises ValueError where `requested` is unknown or cannot run; nothing falls back in silence.
    """
    device, dtype = (place, torch.float32) if isinstance(place, torch.device) else (place.device, place.dtype)
    if requested == "auto":
        if device.type == "cpu":
            return _COMPILED if _is_enabled(dtype) else _EAGER
        obstacle = _no_triton(device, dtype)
        return BackendChoice("eager", obstacle) if obstacle else BackendChoice("triton", _architecture(device))
    if requested in ("eager", "reference"):
        return _ASKED_FOR[requested]
    if requested not in _BACKENDS:
        raise ValueError(f"backend is {requested!r}. Use one of {', '.join(_BACKENDS)}.")
    obstacle = _no_triton(device, dtype) if requested == "triton" else _no_compiled(device)
    if obstacle:
        raise ValueError(f"backend {requested!r} cannot run: {obstacle}. Use 'auto' or 'eager'.")
    return BackendChoice(requested, _architecture(device)) if requested == "triton" else _ASKED_FOR[requested]


def interpreted() -> bool:
    """True where Triton runs its kernels in Python, on CPU tensors (TRITON_INTERPRET=1)."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def _no_triton(device: torch.device, dtype: torch.dtype) -> str | None:
    """Return the reason why the Triton kernels cannot run; None where they can."""
    if device.type != "cuda" and not (device.type == "cpu" and interpreted()):
        return f"tensors are on {device.type}"
    if dtype == torch.float64:
        return "the logits are float64, and the kernels compute in float32"
    return None if torch.compiler.is_compiling() else no_usable_triton()


@lru_cache
def no_usable_triton() -> str | None:
    """Return the reason why no kernel of Triton can run here; None where they can."""
    if find_spec("triton") is None:
        return "triton is not installed"
    found = str(import_module("triton").__version__)
    if tuple(int(part) for part in found.split(".")[:2]) < OLDEST_TRITON:
        return f"triton {found} takes no tuples as arguments of kernels; {'.'.join(map(str, OLDEST_TRITON))} does"
    return None


def _no_compiled(device: torch.device) -> str | None:
    """Return the reason why the CPU's compiled kernel cannot run; None where it can."""
    if device.type != "cpu":
        return f"tensors are on {device.type}, and it is the CPU's"
    if torch.compiler.is_compiling():  # a tracer cannot follow the search for a compiler; the call itself raises
        return None
    from .cpu import compiled

    return compiled.obstacle()


def _is_enabled(dtype: torch.dtype) -> bool:
    """True where `vaefit-cli doctor --build` has built the CPU's kernel for logits of this dtype.

    A graph that torch.compile traces stays eager: a tracer cannot follow the look into the cache folder.
    """
    if torch.compiler.is_compiling():
        return False
    from .cpu import compiled

    return compiled.enabled(dtype)


def _architecture(device: torch.device) -> str:
    """Return the architecture that the Triton kernels are compiled for."""
    if torch.compiler.is_compiling():
        return "traced"
    if device.type == "cpu":
        return "interpreted"
    if torch.version.hip is not None:
        return str(torch.cuda.get_device_properties(device).gcnArchName).partition(":")[0]
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"
