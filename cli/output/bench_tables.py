"""Tables of `vaefit-cli bench`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .terminal import Terminal, new_table

if TYPE_CHECKING:
    from vaefit.benchmarks.counting.bench import HistogramBench
    from vaefit.benchmarks.counting.goals import CountJudgement
    from vaefit.benchmarks.counting.row import CountRow
    from vaefit.benchmarks.kernels.bench import KernelBench
    from vaefit.benchmarks.kernels.cross_compile import Compiled
    from vaefit.benchmarks.kernels.goals import Judgement
    from vaefit.benchmarks.kernels.row import Row
    from vaefit.benchmarks.loading.bench import LoaderBench
    from vaefit.benchmarks.step.bench import StepBench

_NARROW: dict[str, Any] = {"padding": (0, 1, 0, 0), "pad_edge": False}
"""Settings of a table with less room between its columns."""


def print_kernels(terminal: Terminal, bench: KernelBench) -> None:
    """Print the machine, and a table for each operation."""
    place = bench.place
    threads = f", {place.threads} thread{'s' if place.threads > 1 else ''}" if place.device == "cpu" else ""
    terminal.line(f"device      {place.device}: {place.name}{threads}")
    terminal.line(f"focal loss  {bench.backend}")
    terminal.line(f"copy        {place.copy / 1e9:.1f} GB/s, read and written, beyond the cache")
    terminal.line(f"time        {place.clock}, median (quartiles)")
    terminal.line("extra       memory held beside the inputs, results included, in sizes of the logits")
    terminal.line("peers       how many times longer each takes")
    terminal.line()
    for op in dict.fromkeys(row.op for row in bench.rows):
        _print_operation(terminal, [row for row in bench.rows if row.op == op])


def _print_operation(terminal: Terminal, rows: Sequence[Row]) -> None:
    peers = list(dict.fromkeys(name for row in rows for name in row.peers))
    with_host = any(row.ours is not None and row.ours.host_us is not None for row in rows)
    columns = ("off by", "time", *(["host us"] if with_host else []), "GB/s", "of copy", "extra")
    # a GPU's columns just fit a pipe's width
    table = new_table(rows[0].op, left=("logits", "dtype"), right=columns, no_wrap=True, **_NARROW)
    for name in peers:
        table.add_column(name.replace("_", "_\n"), justify="right")
    for row in rows:
        shape = ",".join(map(str, row.shape))
        if row.ours is None:
            table.add_row(shape, row.dtype, f"{row.parity_error:.1e}", "parity is red", style="red")
            continue
        ours = row.ours
        table.add_row(
            shape,
            row.dtype,
            f"{row.parity_error:.0e}",
            _spread(ours.median_us, ours.low_us, ours.high_us),
            *([_digits(ours.host_us)] if ours.host_us is not None else []),
            _digits((row.speed(ours) or 0) / 1e9),
            f"{_digits(100 * (row.share(ours) or 0))} %",
            f"{row.extra_memory:.2f}",
            *(_times(row.ratio.get(name)) for name in peers),
        )
    terminal.table(table)


def print_goals(terminal: Terminal, judgements: Sequence[Judgement]) -> None:
    """Print the goals of the measured cases, if there are any."""
    if not judgements:
        return
    title, left = "goals (one CPU thread, float32)", ("backend", "logits", "operation")
    table = new_table(title, left=left, right=("goal", "measured"), last=("",))
    for judgement in judgements:
        goal, holds = judgement.goal, judgement.holds
        shape = ",".join(map(str, goal.shape))
        measured = "none" if judgement.measured is None else f"{judgement.measured:.2f}"
        result, style = ("holds", None) if holds else ("MISSED", "yellow")
        table.add_row(goal.backend, shape, goal.op, judgement.wanted, measured, result, style=style)
    terminal.table(table)


def print_compiled(terminal: Terminal, compiled: Sequence[Compiled]) -> None:
    """Print registers, spills and memory of each compiled kernel, and whether it passes."""
    title, columns = "kernels, compiled without a GPU", ("registers", "spills", "stack", "shared", "s", "wide")
    table = new_table(title, left=("kernel", "target"), right=columns, last=("gate",), **_NARROW)
    table.columns[0].no_wrap = True
    for one in compiled:
        registers = "unknown" if one.registers is None else str(one.registers)
        numbers = (registers, str(one.spills), str(one.stack), str(one.shared), f"{one.seconds:.1f}")
        wide, gate = "yes" if one.wide_loads else "no", one.problem or "passes"
        table.add_row(one.kernel, one.target, *numbers, wide, gate, style="red" if one.problem else None)
    terminal.table(table)
    failed = sum(one.problem is not None for one in compiled)
    terminal.line(f"{len(compiled)} compiled, {f'{failed} do not pass' if failed else 'all pass'}")


def print_step(terminal: Terminal, bench: StepBench) -> None:
    """Print a row for each loop, and one for each whole check if those were compared."""
    title = f"a step, {bench.clock}: batch {' x '.join(map(str, bench.batch))}, median (quartiles)"
    table = new_table(title, left=("loop",), right=("ms", "times cheaper than plain"))
    for name, cost in bench.loops.items():
        spread = f"{cost.median_ms:.2f} ({cost.low_ms:.2f} to {cost.high_ms:.2f})"
        table.add_row(name, spread, f"{cost.plain_over_this:.2f}")
    terminal.table(table)
    if bench.checks is None:
        return
    checks = new_table("a whole check, in a fresh process", left=("loop",), right=("updates", "CPU s"))
    for name, check in bench.checks.items():
        checks.add_row(name, str(check.updates), f"{check.cpu_seconds:.2f}")
    terminal.table(checks)
    terminal.line("lightning gives no verdict and no pictures")


def print_loader(terminal: Terminal, bench: LoaderBench) -> None:
    """Print the speed of the step, and a table for each dataset."""
    batch = " x ".join(map(str, bench.batch))
    terminal.line(f"step        {_digits(bench.step_speed)} grids/s: batch {batch}, --recipe adam, {bench.device}")
    epoch = f"an epoch of `train` takes {bench.epoch_over_steps:.3f} times the CPU time of its bare steps"
    terminal.line(f"epoch       {epoch}, validation left out")
    terminal.line(f"data        {bench.grids:,} grids, 95 % of them to train on, in the page cache")
    terminal.line("first       from opening the dataset to the first batch")
    terminal.line("grids/s     from there on, on the wall: median (slowest-fastest process)")
    terminal.line("CPU         of all threads, for a million grids")
    terminal.line("extra       the most memory of a fresh process, above what it holds with everything imported")
    terminal.line()
    for layout in dict.fromkeys(row.layout for row in bench.rows):
        columns = ("first", "grids/s", "times what the step needs", "CPU", "extra")
        table = new_table(layout, left=("loader",), right=columns)
        table.columns[0].no_wrap = True
        for row in (row for row in bench.rows if row.layout == layout):
            if row.speed is None or row.low is None or row.high is None:
                table.add_row(row.way, "not timed" if row.parity else "parity is red", style="red")
                continue
            spread = f" ({row.low:,.0f}-{row.high:,.0f})" if row.low < row.high else ""
            speeds = (f"{row.speed:,.0f}{spread}", _times(row.over_step))
            table.add_row(row.way, _seconds(row.first_s), *speeds, _seconds(row.cpu_us), _mebibytes(row.peak_bytes))
        terminal.table(table)


def print_histogram(terminal: Terminal, bench: HistogramBench) -> None:
    """Print the machine, a table for each layout, then memory and time by size, and the cache."""
    versions = ", ".join(f"{name} {found or 'not installed'}" for name, found in bench.versions.items())
    terminal.line(f"device      {bench.place['cpu']}, {bench.cpus} processors to use")
    terminal.line(f"versions    {versions}")
    terminal.line("time        median (quartiles) of a count from opening the file on, which the page cache holds")
    terminal.line("GB/s        bytes of cells in memory over CPU time, all threads added up")
    terminal.line(
        "decoding    reading and inflating alone, into memory that the processor's cache holds, by the same library"
    )
    terminal.line(f"compiled    {bench.counter.told}; the times are without the build, which is for larger datasets")
    terminal.line("extra       the most memory of a fresh process, above what it holds with everything imported")
    terminal.line()
    for title in dict.fromkeys(row.title for row in bench.rows):
        _print_layout(terminal, [row for row in bench.rows if row.title == title])
    title = "gzip-4 (4096,16,16) of growing size, mostly background, counted by numpy"
    table = new_table(title, right=("cells", "CPU time, 1 thread", "GB/s", "extra, 1 thread", "2 threads"))
    for size in bench.scaling.sizes:
        speed = "parity is red" if size.speed is None else _digits(size.speed / 1e9)
        extras = (_mebibytes(size.extra_bytes.get(threads)) for threads in ("1", "2"))
        table.add_row(f"{size.bytes / 1e9:.1f} GB", _seconds(size.cpu_s), speed, *extras)
    terminal.table(table)
    hit = bench.scaling.hit
    if hit is None:
        terminal.line("cache hit   none: parity is red, or the counts were not cached", style="red")
    else:
        terminal.line(f"cache hit   {hit.wall_ms:.2f} ms, {hit.most_wall_ms:.2f} ms at most, beyond the imports")
    terminal.line()


def _print_layout(terminal: Terminal, rows: Sequence[CountRow]) -> None:
    way = next((f", read as {row.way}" for row in rows if row.way), "")
    title = f"{rows[0].title}: {rows[0].bytes / 1e6:,.0f} MB of cells{way}"
    columns = ("CPU time", "on the wall", "GB/s", "x naive", "of decoding", "extra")
    table = new_table(title, left=("implementation",), right=columns, no_wrap=True)
    for row in rows:
        if row.cpu is None or row.wall is None or row.speed is None:
            table.add_row(row.implementation, "not timed" if row.parity else "parity is red", style="red")
            continue
        part = "" if row.measured_bytes == row.bytes else f", {100 * row.measured_bytes / row.bytes:.0f} % of it"
        table.add_row(
            row.implementation + part,
            _spread(1e6 * row.cpu.median, 1e6 * row.cpu.low, 1e6 * row.cpu.high),
            _seconds(row.wall.median),
            f"{row.speed / 1e9:.3g}",
            "" if row.ratio is None else _times(row.ratio),
            "" if row.decode_share is None else f"{100 * row.decode_share:.0f} %",
            _mebibytes(row.extra_bytes),
        )
    terminal.table(table)


def print_count_goals(terminal: Terminal, judgements: Sequence[CountJudgement]) -> None:
    """Print the goals of the measured layouts."""
    table = new_table("goals of counting", left=("of", "goal"), right=("measured",), last=("",))
    for judgement in judgements:
        measured = "none" if judgement.measured is None else _digits(judgement.measured)
        result = "holds" if judgement.holds else "MISSED"
        table.add_row(judgement.what, judgement.goal, measured, result, style=None if judgement.holds else "yellow")
    terminal.table(table)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{_digits(value)} s" if value >= 1 else f"{_digits(1e3 * value)} ms"


def _mebibytes(value: int | None) -> str:
    return "" if value is None else f"{value / (1 << 20):.1f} MiB"


def _spread(*microseconds: float) -> str:
    """Return median and quartiles in one unit, chosen by the median."""
    unit, size = ("us", 1.0) if microseconds[0] < 1000 else ("ms", 1e3) if microseconds[0] < 1e6 else ("s", 1e6)
    median, low, high = (_digits(value / size) for value in microseconds)
    return f"{median} ({low}-{high}) {unit}"


def _digits(value: float) -> str:
    """Return three digits, or all digits before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _times(ratio: float | None) -> str:
    return "none" if ratio is None else f"{ratio:.2f}" if ratio < 100 else f"{ratio:,.0f}"
