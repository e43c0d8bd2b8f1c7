"""Benchmark of the kernels: parity with the reference, then time against their peers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from vaefit.kernels import BackendChoice
from vaefit.vae.environment.device import choose_device, preferred_backend
from vaefit.vae.environment.hardware import cpu_name
from vaefit.vae.errors import RunError

from ..threads import cpu_threads
from .case import Case, Contest
from .clock import clock_for, copy_bandwidth
from .inputs import OPS, Op, Shape, spelled
from .memory import out_of_memory
from .peers import available
from .plan import KernelSettings
from .row import Place, Row

_log = logging.getLogger("vaefit")

Begins = Callable[[int, int, str], None]
"""Callback before each row: the rows done, the rows in all, the name of the next."""


@dataclass(frozen=True)
class KernelBench:
    """Result of the benchmark: all rows, their place and their backend."""

    place: Place
    backend: BackendChoice
    rows: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        """True where every answer of ours was right."""
        return all(row.parity for row in self.rows)


def bench_kernels(settings: KernelSettings, begins: Begins | None = None) -> KernelBench:
    """Measure every shape, dtype and operation; log a warning for everything left out.

    Raises RunError where the requested device or backend cannot run, or a shape does not fit into memory.
    """
    device = choose_device(settings.device)
    backend, choice = preferred_backend(settings.backend, device)
    peers, notes = available(device, with_inductor=not (settings.quick and device.type == "cpu"))
    if settings.threads > 1 and device.type == "cpu":
        notes = [*notes, "with more than one thread times are wall times, which other processes lengthen"]
    for note in [*notes, *settings.left_out(device)]:
        _log.warning(note)
    cases = settings.cases_on(device)
    rows: list[Row] = []
    with cpu_threads(settings.threads):
        clock = clock_for(device, settings.threads)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
        place = Place(device.type, name, settings.threads, clock.name, copy_bandwidth(device, clock))
        contest = Contest(backend, tuple(peers), device, clock, place, settings.rounds_on(device))
        for shape, dtype in cases:

            def announce(op: Op, what: str = f"{spelled(shape)} {dtype}") -> None:
                if begins is not None:
                    begins(len(rows), len(OPS) * len(cases), f"{what} {op}")

            with _fitting(shape, dtype):
                _measure(Case.from_contest(contest, shape, dtype), rows, announce)
    return KernelBench(place, choice, tuple(rows))


def _measure(case: Case, rows: list[Row], announce: Callable[[Op], None]) -> None:
    """Add a row for each operation, and free the case's memory before the next case."""
    for op in OPS:
        announce(op)
        rows.append(case.row(op))


@contextmanager
def _fitting(shape: Shape, dtype: str) -> Iterator[None]:
    """Raise RunError where the memory is too small."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise RunError(
            "this shape does not fit into memory, with the float64 reference beside it",
            "--shape",
            f"{spelled(shape)} {dtype}",
            "Pass a smaller --shape.",
        ) from error
