"""The GPU kernels, compiled without a GPU."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from vaefit.kernels.backend import interpreted
from vaefit.vae.errors import RunError

if TYPE_CHECKING:
    from vaefit.kernels._triton.offline import Compiled


def compile_kernels() -> list[Compiled]:
    """Every kernel compiled for every target, with what the gate finds; RunError where nothing can be compiled."""
    where = "--compile-only"
    if find_spec("triton") is None:
        raise RunError("triton, which compiles the kernels, is not installed", where, do="Install it; it needs Linux.")
    if interpreted():
        raise RunError("TRITON_INTERPRET=1 is set, so nothing is compiled", where, do="Unset it.")
    from vaefit.kernels._triton.offline import compile_all

    return compile_all()
