"""`vaefit-cli bench`: measure kernels, counting, steps and loaders against their peers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..options.parameters import DATA_FORMS, Backend, Data, Device, OutputOptions, Quiet, numbers, option, with_groups

if TYPE_CHECKING:
    from ..output.terminal import Terminal

bench = typer.Typer(
    help="Measure kernels, counting of datasets, step and loaders: parity first, then time, against peers.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@bench.command()
def kernels(
    shape: list[str] | None = option(
        None, "Shape of the logits; may be repeated.", metavar="B,C,H,W", default_text="by the device"
    ),
    dtype: list[str] | None = option(
        None,
        "Type of the logits; may be repeated.",
        metavar="float32|bfloat16|float16",
        default_text="float32, bfloat16",
    ),
    backend: Backend = "auto",
    device: Device = "auto",
    threads: int = option(1, "CPU threads; times are CPU times of the process with one, wall times with more."),
    quick: bool = option(False, "Under a minute on a CPU: fewer rounds and shapes, no compiled peer.", "--quick"),
    chart: Path | None = option(None, "Draw the share of bandwidth; replaces the file.", metavar="FILE.png"),
    compile_only: bool = option(
        False, "Compile each Triton kernel for several GPUs, present or not; nothing runs.", "--compile-only"
    ),
    require: bool = option(False, "Exit 1 if a goal is missed.", "--require"),
    as_json: bool = option(False, "Print one JSON list, an object a row.", "--json"),
    quiet: Quiet = False,
) -> None:
    """Measure loss, gradient and confusion counts of each shape and dtype.

    First every answer is compared with the reference in float64: if one is wrong, no time is printed and the exit code
    is 1. Then our kernels and their peers are timed in turns. GB/s are the bytes of one pass (each input read once,
    each output written once) over the time; a copy measures the memory bandwidth of this process.
    """
    from ..output.terminal import Terminal

    terminal = Terminal(as_json, quiet)
    if compile_only:
        _compile_only(terminal)
    from vaefit.benchmarks.kernels.bench import bench_kernels
    from vaefit.benchmarks.kernels.goals import judge_goals
    from vaefit.benchmarks.kernels.plan import KernelSettings

    from ..output.bench_tables import print_goals, print_kernels

    shapes = tuple(_shape(text) for text in shape) if shape else None
    dtypes = tuple(dtype) if dtype else None
    settings = KernelSettings(shapes, dtypes, backend=backend, device=device, threads=threads, quick=quick)
    if chart is not None:
        from vaefit.benchmarks.kernels.chart import check_chart, draw_kernels

        check_chart(chart)
    with terminal.progress() as progress:
        found = bench_kernels(settings, progress.timing)
    print_kernels(terminal, found)
    judgements = judge_goals(found.rows)
    print_goals(terminal, judgements)
    if require and not judgements:
        terminal.note("no goal is set for what ran, so --require is not met; goals are of float32 on one CPU thread")
    if chart is not None:
        draw_kernels(found, chart)
        terminal.note(f"chart in {chart}")
    terminal.json([row.json() for row in found.rows])
    missed = require and not (judgements and all(judgement.holds for judgement in judgements))
    raise typer.Exit(0 if found.passed and not missed else 1)


@bench.command()
@with_groups
def histogram(
    layout: list[str] | None = option(
        None, "Layout of the stored data; may be repeated.", metavar="NAME", default_text="all"
    ),
    grids: int | None = option(None, "16 x 16 grids of each layout.", default_text="262144, with --quick 131072"),
    quick: bool = option(False, "Fewer rounds and layouts, no dataset of 4 GB, memory of our scan alone.", "--quick"),
    require: bool = option(False, "Exit 1 if a goal is missed.", "--require"),
    output: OutputOptions = OutputOptions(),
) -> None:
    """Measure the counting of a whole dataset, layout by layout.

    Layouts: gzip, gzip-columns, gzip-small, gzip-shuffle, int64, chunked, contiguous, lzf, zstd, blosc. First all
    counts are compared with numpy's: if one is wrong, nothing of that layout is timed and the exit code is 1. Then a
    loop over slices, whole chunks through h5py, our scan on one and two threads, with the compiled counter and without
    libdeflate, and decoding alone are timed in turns. GB/s are bytes of cells in memory over CPU time.
    """
    from vaefit.benchmarks.counting.bench import HistogramSettings, bench_histogram
    from vaefit.benchmarks.counting.goals import judge_counting

    from ..output.bench_tables import print_count_goals, print_histogram

    terminal = output.terminal()
    settings = HistogramSettings(tuple(layout) if layout else None, grids, quick)
    with terminal.progress() as progress:
        found = bench_histogram(settings, progress.timing)
    print_histogram(terminal, found)
    judgements = judge_counting(found)
    print_count_goals(terminal, judgements)
    terminal.json({**found.json(), "goals": [judgement.json() for judgement in judgements]})
    missed = require and not all(judgement.holds for judgement in judgements)
    raise typer.Exit(0 if found.passed and not missed else 1)


@bench.command()
@with_groups
def step(
    data: Data = None,
    rounds: int = option(8, "Rounds of every loop."),
    steps: int = option(40, "Steps of a round, at least 3."),
    no_peers: bool = option(False, "Leave Lightning out.", "--no-peers"),
    device: Device = "cpu",
    require: float = option(0.0, "Exit 1 unless the plain loop costs this many times ours with Adam.", metavar="TIMES"),
    output: OutputOptions = OutputOptions(),
) -> None:
    """Measure the cost of a step of the check, against a plain PyTorch loop and PyTorch Lightning.

    Every loop fits the same network from the same parameters to the same batch, in turns, on one thread; times are CPU
    times. With --device cuda they are wall times, and our loop runs step by step, compiled, and as a CUDA graph.
    First the plain loop and ours must agree on the loss and accuracies of the first step: if they differ, no time is
    printed and the exit code is 1.
    """
    from vaefit.benchmarks.step.bench import StepSettings, bench_step
    from vaefit.vae.data.synthetic import embedded_corpus

    from ..output.bench_tables import print_step

    terminal = output.terminal()
    settings = StepSettings(rounds=rounds, steps=steps, with_peers=not no_peers, device=device)
    with terminal.progress() as progress:
        found = bench_step(data or embedded_corpus(terminal.note), settings, progress.timing)
    if found.wrong is not None:
        typer.echo(f"error: parity is red, so nothing is timed: {found.wrong}", err=True)
        terminal.json(found.json())
        raise typer.Exit(1)
    print_step(terminal, found)
    terminal.json(found.json())
    raise typer.Exit(0 if found.times_cheaper >= require else 1)


@bench.command()
@with_groups
def loader(
    data: Annotated[str | None, typer.Argument(help=f"{DATA_FORMS}.", show_default="grids in three layouts")] = None,
    grids: int | None = option(None, "16 x 16 grids of each layout.", default_text="1048576, with --quick 131072"),
    batch_size: int = option(128, "Grids in a batch, and in a step."),
    device: Device = "cpu",
    quick: bool = option(False, "One short round of each loader.", "--quick"),
    output: OutputOptions = OutputOptions(),
) -> None:
    """Measure the speed of the loaders, from memory and streamed from HDF5, against the speed of the training step.

    Without DATA, grids are stored contiguous, by gzip in chunks (4096,16,16), and in (131072,1,1), which h5py guesses.
    The first grids of each loader must equal those of h5py: if they differ, nothing is timed and the exit code is 1.
    Each loader is measured in fresh processes, in turns, with the files in the page cache.
    """
    from vaefit.benchmarks.loading.bench import LoaderSettings, bench_loader

    from ..output.bench_tables import print_loader

    terminal = output.terminal()
    settings = LoaderSettings(grids, batch_size, device, quick)
    with terminal.progress() as progress:
        found = bench_loader(data, settings, progress.timing)
    print_loader(terminal, found)
    terminal.json(found.json())
    raise typer.Exit(0 if found.passed else 1)


def _shape(text: str) -> tuple[int, int, int, int]:
    batch, classes, height, width = map(int, numbers("--shape", text, 4, whole=True) or ())
    return batch, classes, height, width


def _compile_only(terminal: Terminal) -> None:
    """Compile each kernel, print the table, and exit 1 if one does not pass."""
    from dataclasses import asdict

    from vaefit.benchmarks.kernels.cross_compile import compile_kernels

    from ..output.bench_tables import print_compiled

    terminal.note("compiling every kernel for every target")
    found = compile_kernels()
    print_compiled(terminal, found)
    terminal.json([asdict(compiled) for compiled in found])
    raise typer.Exit(0 if all(compiled.problem is None for compiled in found) else 1)
