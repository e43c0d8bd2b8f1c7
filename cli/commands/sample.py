"""`vaefit-cli sample`."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..options.common import AsJson, Device, Quiet

if TYPE_CHECKING:
    from vaefit.vae.runs.sample import SampleSummary

    from ..output.terminal import Terminal


def sample(
    run: Annotated[Path, typer.Argument(readable=False, help="The folder of a run of `train` or `overfit`.")],
    count: Annotated[int, typer.Option(help="Grids to draw.")] = 32,
    seed: Annotated[int, typer.Option(help="Drives z; same seed, same picture.")] = 0,
    temperature: Annotated[float, typer.Option(help="Standard deviation of z.")] = 1.0,
    out: Annotated[
        Path | None, typer.Option(readable=False, metavar="FILE.png", help="The picture (samples.png in RUN).")
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Draw grids from the prior, z ~ N(0, temperature^2 I), with the trained model of RUN."""
    from vaefit.vae.runs.sample import SampleSettings
    from vaefit.vae.runs.sample import sample as draw_samples

    from ..output.terminal import Terminal

    terminal = Terminal(as_json, quiet)
    # a model of one's own may print
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        summary = draw_samples(SampleSettings(run, count, seed, temperature, out, device))
    terminal.note(summary.note)
    _print(terminal, summary)
    terminal.json(summary.json())


def _print(terminal: Terminal, found: SampleSummary) -> None:
    from rich.table import Table

    table = Table(title="share of cells")
    for column in ("class", "samples", "dataset"):
        table.add_column(column, justify="right")
    for c, share in enumerate(found.shares):
        before = "-" if found.dataset_shares is None else f"{found.dataset_shares[c]:.2%}"
        table.add_row(str(c), f"{share:.2%}", before)
    terminal.table(table)
    terminal.line(f"samples  {found.count} grids, {found.distinct} of them different, seed {found.seed}")
    terminal.line(f"picture  {found.file}")
