"""`vaefit-cli doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ..options.parameters import Backend, Device, OutputOptions

if TYPE_CHECKING:
    from vaefit.vae.runs.self_test import BuiltLibrary, Report

    from ..output.terminal import Terminal


Build = Annotated[
    bool, typer.Option("--build", help="Build the C and C++ code and keep it; later CPU runs with auto use it.")
]


def doctor(
    device: Device = "auto", backend: Backend = "auto", build: Build = False, output: OutputOptions = OutputOptions()
) -> None:
    """Show versions, device, memory, backend and cache folder, and run a small self-test; exit 1 where it fails."""
    from dataclasses import asdict

    from vaefit.vae.environment.device import choose_device, preferred_backend
    from vaefit.vae.runs.self_test import build_native, examine

    terminal = output.terminal()
    place = choose_device(device)
    built = build_native() if build else ()
    _print_built(terminal, built)
    report = examine(place, preferred_backend(backend, place)[0])
    _print(terminal, report)
    found = asdict(report)
    extra = {"built": [asdict(library) for library in built]} if build else {}
    terminal.json({**found.pop("machine"), **found, **extra, "passed": report.passed})
    raise typer.Exit(0 if report.passed else 1)


def _print_built(terminal: Terminal, built: Sequence[BuiltLibrary]) -> None:
    for library in built:
        how = "built earlier" if library.seconds is None else f"built in {library.seconds:.1f} s"
        terminal.line(f"{library.name:<22}{how}: {library.file}")
    if built:
        terminal.line()


def _print(terminal: Terminal, report: Report) -> None:
    from ..output.terminal import new_table

    machine = report.machine
    for name, found in machine.versions.items():
        terminal.line(f"{name:<12}{found or 'not installed'}")
    terminal.line(f"{'system':<12}{machine.system}")
    terminal.line(f"{'cpu':<12}{machine.cpu}, {machine.cores} cores, {machine.threads} threads")
    terminal.line(f"{'memory':<12}{_gib(machine.memory)}, {_gib(machine.memory_free)} free")
    terminal.line(f"{'gpu':<12}{machine.gpu or 'none that torch sees'}")
    terminal.line(f"{'device':<12}{report.device}")
    terminal.line(f"{'focal loss':<12}{report.backend}")
    cache = f"{_gib(machine.cache_free)} free" if machine.cache_problem is None else machine.cache_problem
    terminal.line(f"{'cache':<12}{machine.cache_folder}, {cache}")
    terminal.line()
    table = new_table("self-test", left=("part", "", "found"))
    for trial in report.trials:
        style = None if trial.passed else "red"
        table.add_row(trial.name, "ok" if trial.passed else "FAILED", trial.detail, style=style)
    terminal.table(table)
    terminal.line("all is well" if report.passed else "the self-test failed: the check cannot be trusted here")


def _gib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 2**30:.1f} GiB"
