"""`vaefit-cli bench`: measure kernels, counting, steps and loaders against their peers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..options.parameters import DATA_FORMS, AsJson, Backend, Data, Device, Quiet, numbers, option, path_option

if TYPE_CHECKING:
    from ..output.terminal import Terminal

bench = typer.Typer(
    help="Measure kernels, counting of datasets, step and loaders: parity first, then time, against peers.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@bench.command()
def kernels(
    shape: Annotated[
        list[str] | None,
        option("Shape of the logits; may be repeated.", metavar="B,C,H,W", default="by the device"),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        option("Type of the logits; may be repeated.", metavar="float32|bfloat16|float16", default="float32, bfloat16"),
    ] = None,
    backend: Backend = "auto",
    device: Device = "auto",
    threads: Annotated[
        int, option("CPU threads; times are CPU times of the process with one, wall times with more.")
    ] = 1,
    quick: Annotated[
        bool, option("Under a minute on a CPU: fewer rounds and shapes, no compiled peer.", "--quick")
    ] = False,
    chart: Annotated[
        Path | None, path_option("Draw the share of bandwidth; replaces the file.", metavar="FILE.png")
    ] = None,
    compile_only: Annotated[
        bool, option("Compile each Triton kernel for several GPUs, present or not; nothing runs.", "--compile-only")
    ] = False,
    require: Annotated[bool, option("Exit 1 if a goal is missed.", "--require")] = False,
    as_json: Annotated[bool, option("Print one JSON list, an object a row.", "--json")] = False,
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
def histogram(
    layout: Annotated[
        list[str] | None, option("Layout of the stored data; may be repeated.", metavar="NAME", default="all")
    ] = None,
    grids: Annotated[int | None, option("16 x 16 grids of each layout.", default="262144, with --quick 131072")] = None,
    quick: Annotated[
        bool, option("Fewer rounds and layouts, no dataset of 4 GB, memory of our scan alone.", "--quick")
    ] = False,
    require: Annotated[bool, option("Exit 1 if a goal is missed.", "--require")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
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
    from ..output.terminal import Terminal

    terminal = Terminal(as_json, quiet)
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
def step(
    data: Data = None,
    rounds: Annotated[int, option("Rounds of every loop.")] = 8,
    steps: Annotated[int, option("Steps of a round, at least 3.")] = 40,
    no_peers: Annotated[bool, option("Leave Lightning out.", "--no-peers")] = False,
    device: Device = "cpu",
    require: Annotated[
        float, option("Exit 1 unless the plain loop costs this many times ours with Adam.", metavar="TIMES")
    ] = 0.0,
    as_json: AsJson = False,
    quiet: Quiet = False,
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
    from ..output.terminal import Terminal

    terminal = Terminal(as_json, quiet)
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
def loader(
    data: Annotated[str | None, typer.Argument(help=f"{DATA_FORMS}.", show_default="grids in three layouts")] = None,
    grids: Annotated[
        int | None, option("16 x 16 grids of each layout.", default="1048576, with --quick 131072")
    ] = None,
    batch_size: Annotated[int, option("Grids in a batch, and in a step.")] = 128,
    device: Device = "cpu",
    quick: Annotated[bool, option("One short round of each loader.", "--quick")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure the speed of the loaders, from memory and streamed from HDF5, against the speed of the training step.

    Without DATA, grids are stored contiguous, by gzip in chunks (4096,16,16), and in (131072,1,1), which h5py guesses.
    The first grids of each loader must equal those of h5py: if they differ, nothing is timed and the exit code is 1.
    Each loader is measured in fresh processes, in turns, with the files in the page cache.
    """
    from vaefit.benchmarks.loading.bench import LoaderSettings, bench_loader

    from ..output.bench_tables import print_loader
    from ..output.terminal import Terminal

    terminal = Terminal(as_json, quiet)
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
