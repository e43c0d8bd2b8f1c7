"""`vaefit-cli sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ..options.parameters import AsJson, Device, Quiet, Run, option, path_option


def sample(
    run: Run,
    count: Annotated[int, option("Grids to draw.")] = 32,
    seed: Annotated[int, option("Seed of z; the same seed gives the same picture.")] = 0,
    temperature: Annotated[float, option("Standard deviation of z.")] = 1.0,
    out: Annotated[Path | None, path_option("The picture (samples.png in RUN).", metavar="FILE.png")] = None,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Draw grids from the prior, z ~ N(0, temperature^2 I), with the trained model of RUN."""
    from vaefit.vae.runs.sample import SampleSettings
    from vaefit.vae.runs.sample import sample as draw_samples

    from ..output.terminal import Terminal, new_table

    terminal = Terminal(as_json, quiet)
    with terminal.user_output():
        summary = draw_samples(SampleSettings(run, count, seed, temperature, out, device))
    terminal.note(summary.note)
    table = new_table("share of cells", right=("class", "samples", "dataset"))
    for c, share in enumerate(summary.shares):
        before = "-" if summary.dataset_shares is None else f"{summary.dataset_shares[c]:.2%}"
        table.add_row(str(c), f"{share:.2%}", before)
    terminal.table(table)
    terminal.line(f"samples  {summary.count} grids, {summary.distinct} of them different, seed {summary.seed}")
    terminal.line(f"picture  {summary.file}")
    terminal.json(summary.json())
