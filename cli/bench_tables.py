"""The tables of `vaefit-cli bench`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from .console import Terminal

if TYPE_CHECKING:
    from vaefit.benchmarks.goals import Judgement
    from vaefit.benchmarks.kernels import KernelBench
    from vaefit.benchmarks.race import Timing
    from vaefit.benchmarks.row import Row
    from vaefit.benchmarks.step import StepBench
    from vaefit.kernels._triton.offline import Compiled


def print_kernels(terminal: Terminal, bench: KernelBench) -> None:
    """Where it ran, and a table for each operation."""
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
        _operation(terminal, [row for row in bench.rows if row.op == op])


def _operation(terminal: Terminal, rows: Sequence[Row]) -> None:
    peers = list(dict.fromkeys(name for row in rows for name in row.peers))
    with_host = any(row.ours is not None and row.ours.host_us is not None for row in rows)
    table = Table(title=rows[0].op, padding=(0, 1, 0, 0), pad_edge=False)  # a GPU's columns just fit a pipe's width
    table.add_column("logits", no_wrap=True)
    table.add_column("dtype")
    for column in ("off by", "time", *(["host us"] if with_host else []), "GB/s", "of copy", "extra"):
        table.add_column(column, justify="right", no_wrap=True)
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
            _spread(ours),
            *([_digits(ours.host_us)] if ours.host_us is not None else []),
            _digits((row.speed(ours) or 0) / 1e9),
            f"{_digits(100 * (row.share(ours) or 0))} %",
            f"{row.extra_memory:.2f}",
            *(_times(row.ratio.get(name)) for name in peers),
        )
    terminal.table(table)


def print_goals(terminal: Terminal, judgements: Sequence[Judgement]) -> None:
    """Each goal that what ran is about; nothing where there is none."""
    if not judgements:
        return
    table = Table(title="goals (one CPU thread, float32)")
    for column in ("backend", "logits", "operation"):
        table.add_column(column)
    table.add_column("goal", justify="right")
    table.add_column("measured", justify="right")
    table.add_column("")
    for judgement in judgements:
        goal, measured = judgement.goal, judgement.measured
        table.add_row(
            goal.backend,
            ",".join(map(str, goal.shape)),
            goal.op,
            judgement.wanted,
            "none" if measured is None else f"{measured:.2f}",
            "holds" if judgement.holds else "MISSED",
            style=None if judgement.holds else "yellow",
        )
    terminal.table(table)


def print_compiled(terminal: Terminal, compiled: Sequence[Compiled]) -> None:
    """What the compiler made of each kernel, and what the gate says."""
    table = Table(title="kernels, compiled without a GPU", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("kernel", no_wrap=True)
    table.add_column("target")
    for column in ("registers", "spills", "stack", "shared", "s", "wide"):
        table.add_column(column, justify="right")
    table.add_column("gate")
    for one in compiled:
        registers = "unknown" if one.registers is None else str(one.registers)
        numbers = (registers, str(one.spills), str(one.stack), str(one.shared), f"{one.seconds:.1f}")
        wide, gate = "yes" if one.wide_loads else "no", one.problem or "passes"
        table.add_row(one.kernel, one.target, *numbers, wide, gate, style="red" if one.problem else None)
    terminal.table(table)
    failed = sum(one.problem is not None for one in compiled)
    terminal.line(f"{len(compiled)} compiled, {f'{failed} do not pass' if failed else 'all pass'}")


def print_step(terminal: Terminal, bench: StepBench) -> None:
    """A row for each loop, and for each whole check where those were compared."""
    table = Table(title=f"a step, {bench.clock}: batch {' x '.join(map(str, bench.batch))}, median (quartiles)")
    table.add_column("loop")
    for column in ("ms", "times cheaper than plain"):
        table.add_column(column, justify="right")
    for name, cost in bench.loops.items():
        spread = f"{cost.median_ms:.2f} ({cost.low_ms:.2f} to {cost.high_ms:.2f})"
        table.add_row(name, spread, f"{cost.plain_over_this:.2f}")
    terminal.table(table)
    if bench.checks is None:
        return
    checks = Table(title="a whole check, in a fresh process")
    checks.add_column("loop")
    for column in ("updates", "CPU s"):
        checks.add_column(column, justify="right")
    for name, check in bench.checks.items():
        checks.add_row(name, str(check.updates), f"{check.cpu_seconds:.2f}")
    terminal.table(checks)
    terminal.line("lightning gives no verdict and no pictures")


def _spread(timing: Timing) -> str:
    """Median and quartiles, all in the unit that suits the median."""
    unit, size = ("us", 1.0) if timing.median_us < 1000 else ("ms", 1e3) if timing.median_us < 1e6 else ("s", 1e6)
    median, low, high = (_digits(value / size) for value in (timing.median_us, timing.low_us, timing.high_us))
    return f"{median} ({low}-{high}) {unit}"


def _digits(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _times(ratio: float | None) -> str:
    return "none" if ratio is None else f"{ratio:.2f}" if ratio < 100 else f"{ratio:,.0f}"
