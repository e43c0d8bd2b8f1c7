"""Self-test: each part of the overfit check on this machine."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from vaefit.cache import class_counts
from vaefit.cache.scan import native_counter
from vaefit.kernels import Backend, choose_backend
from vaefit.kernels.cpu import compiled
from vaefit.native_build import BuildError, Library

from ..data.hdf5_writer import write_grids
from ..data.synthetic import SyntheticSpec, synthesise
from ..environment.hardware import Machine
from ..errors import RunError
from ..model.beta_vae import BetaVAE
from ..objective.objective import Objective
from ..objective.preflight import Agreement, difference
from ..overfitting import overfit


@dataclass(frozen=True)
class Trial:
    """Result of a part of the self-test."""

    name: str
    passed: bool
    detail: str
    """The result in words and numbers."""
    seconds: float


@dataclass(frozen=True)
class Report:
    """Result of the self-test, as `vaefit-cli doctor` prints it."""

    machine: Machine
    device: str
    """Device of the computation."""
    backend: str
    """Implementation of the loss on this device, with the reason."""
    trials: tuple[Trial, ...]

    @property
    def passed(self) -> bool:
        """True if every trial passed."""
        return all(trial.passed for trial in self.trials)


@dataclass(frozen=True)
class BuiltLibrary:
    """A library of native code that `build_native` built, or found built."""

    name: str
    file: str
    seconds: float | None
    """Duration of the build; None where an earlier build is kept."""


def build_native() -> tuple[BuiltLibrary, ...]:
    """Build the CPU's loss kernel for each dtype of logits, and on Linux the byte counter; keep them for later runs.

    `backend="auto"` takes the kernel from then on. Raises RunError where there is no compiler, the build fails or the
    user's cache folder cannot keep the libraries.
    """
    builds: list[tuple[str, Callable[[], Library]]] = [
        (f"focal loss, {str(dtype).removeprefix('torch.')}", partial(compiled.build, dtype, enable=True))
        for dtype in compiled.DTYPES
    ]
    if sys.platform == "linux":
        builds.append(("byte counter", partial(native_counter.build, enable=True)))
    built = []
    for name, build in builds:
        try:
            library = build()
        except (BuildError, ValueError) as error:
            what, _, do = str(error).partition(". ")
            raise RunError(what, name, do=do) from error
        built.append(BuiltLibrary(name, str(library.file), library.seconds))
    return tuple(built)


def examine(device: torch.device, backend: Backend = "auto") -> Report:
    """Inspect the installation and run the self-test on `device`; takes about a second.

    Raises ValueError where the requested backend cannot run there.
    """
    return Report(
        machine=Machine.from_system(),
        device=str(device),
        backend=str(choose_backend(backend, device)),
        trials=(
            _trial("focal loss and gradient", lambda: _loss(device, backend)),
            _trial("confusion counts", lambda: _counts(device, backend)),
            _trial("counting a dataset", _dataset),
            _trial("memorising 4 grids", lambda: _check(device, backend)),
        ),
    )


def _trial(name: str, run: Callable[[], tuple[bool, str]]) -> Trial:
    start = time.perf_counter()
    try:
        passed, detail = run()
    except Exception as error:  # the command reports every failure
        passed, detail = False, f"{type(error).__name__}: {error}"
    return Trial(name, passed, detail, time.perf_counter() - start)


def _difference(device: torch.device, backend: Backend) -> tuple[Agreement, int]:
    """Run a preflight on random logits (8, 10, 16, 16); return its result and the number of cells."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(8, 10, 16, 16, generator=generator)
    targets = torch.randint(0, 10, (8, 16, 16), generator=generator)
    weights = 0.1 + torch.rand(10, generator=generator)
    objective = Objective(weights.to(device), reduction="mean", backend=backend)
    found = difference(objective, logits.to(device), targets.to(device))
    assert found is not None  # these logits have a finite loss
    return found, targets.numel()


def _loss(device: torch.device, backend: Backend) -> tuple[bool, str]:
    found, _ = _difference(device, backend)
    worst = max(found.loss, found.gradient)
    return found.loss_agrees, f"at most {worst:.1e} from float64, {found.loss_allowed:g} allowed"


def _counts(device: torch.device, backend: Backend) -> tuple[bool, str]:
    found, cells = _difference(device, backend)
    same = found.miscounted == 0
    return same, f"{cells} cells, {'equal to' if same else 'not'} the reference's"


def _dataset() -> tuple[bool, str]:
    grids = synthesise(SyntheticSpec(grids=256))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "grids.h5"
        write_grids(file, grids, 10, "self-test")
        counts = class_counts(file, use_cache=False)
    same = np.array_equal(counts, np.bincount(grids.reshape(-1), minlength=10))
    return same, f"{grids.size} cells through HDF5, {'equal to' if same else 'not'} numpy's"


def _check(device: torch.device, backend: Backend) -> tuple[bool, str]:
    grids = synthesise(SyntheticSpec(grids=4, height=8, width=8))
    result = overfit(BetaVAE(10, 8, 8).to(device), grids, weights=np.ones(10), backend=backend)
    return result.passed, f"{result.verdict} after {result.iterations} updates"
