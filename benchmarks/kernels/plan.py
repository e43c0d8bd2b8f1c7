"""Settings of the benchmark: shapes, dtypes and rounds."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import torch

from vaefit.cache.errors import SettingError, require, require_range
from vaefit.cache.scan.histogram import MAX_CLASSES
from vaefit.vae.environment.device import known_backend, known_device
from vaefit.vae.settings import MAX_THREADS

from .inputs import DTYPES, Shape, spelled

SHAPES: tuple[Shape, ...] = (
    (32, 10, 16, 16),
    (1024, 10, 16, 16),
    (8192, 10, 16, 16),
    (65536, 10, 16, 16),
    (64, 21, 512, 512),
    (16, 150, 512, 512),
)
"""From bound by launches to bound by bandwidth, and more classes than a GPU's thread has registers for."""
CPU_SHAPES: tuple[Shape, ...] = ((32, 10, 16, 16), (1024, 10, 16, 16), (16, 21, 256, 256), (8192, 10, 16, 16))
QUICK_SHAPES: tuple[Shape, ...] = CPU_SHAPES[:3]
"""The shapes that have goals."""
DTYPES_MEASURED = ("float32", "bfloat16")
MOST_SIDE = 1 << 24


@dataclass(frozen=True)
class KernelSettings:
    """Settings of `vaefit-cli bench kernels`; SettingError for a value that is wrong by itself."""

    shapes: tuple[Shape, ...] | None = None
    dtypes: tuple[str, ...] | None = None
    backend: str = "auto"
    device: str = "auto"
    threads: int = 1
    """Threads of the CPU."""
    quick: bool = False
    """Fewer rounds; on the CPU no peer that has to be compiled, and only the shapes that goals are set for."""

    def __post_init__(self) -> None:
        for batch, classes, height, width in self.shapes or ():
            require_range("--shape", classes, 2, MAX_CLASSES)
            for side in (batch, height, width):
                require_range("--shape", side, 1, MOST_SIDE)
        for name in self.dtypes or ():
            require(name in DTYPES, "--dtype", name, f"one of {', '.join(DTYPES)}")
        for option, values in (("--dtype", self.dtypes or ()), ("--shape", self.shapes or ())):
            if len(set(values)) < len(values):
                raise SettingError("a value is given twice", option, ", ".join(map(str, values)), "Pass each once.")
        require_range("--threads", self.threads, 1, MAX_THREADS)
        known_device(self.device)
        known_backend(self.backend)

    def cases_on(self, device: torch.device) -> list[tuple[Shape, str]]:
        """Return the requested shapes and dtypes, or those that suit the device."""
        on_cpu = device.type == "cpu"
        usual = SHAPES if not on_cpu else QUICK_SHAPES if self.quick else CPU_SHAPES
        cases = itertools.product(self.shapes or usual, self.dtypes or DTYPES_MEASURED)
        if not (on_cpu and self.quick) or self.shapes is not None or self.dtypes is not None:
            return list(cases)
        # the largest shape takes most of the time
        return [case for case in cases if case != (QUICK_SHAPES[-1], "bfloat16")]

    def left_out(self, device: torch.device) -> list[str]:
        """Return notes on the shapes that are measured only on request."""
        if device.type != "cpu" or self.shapes is not None:
            return []
        slow = " ".join(spelled(shape) for shape in SHAPES if shape not in CPU_SHAPES)
        found = [f"left out, since they take long on a CPU: {slow}; --shape takes them"]
        quick = [case for case in replace(self, quick=False).cases_on(device) if case not in self.cases_on(device)]
        if quick:
            found.append(f"left out with --quick: {', '.join(f'{spelled(shape)} {dtype}' for shape, dtype in quick)}")
        return found

    def rounds_on(self, device: torch.device) -> int:
        """Return the number of samples of each contestant."""
        if device.type != "cpu":
            return 7 if self.quick else 21
        return 3 if self.quick else 9
