"""`vaefit-cli sample`."""

from __future__ import annotations

from pathlib import Path

from ..options.parameters import Device, OutputOptions, Run, Verbose, option


def sample(
    run: Run,
    count: int = option(32, "Grids to draw."),
    seed: int = option(0, "Seed of z; the same seed gives the same picture."),
    temperature: float = option(1.0, "Standard deviation of z."),
    out: Path | None = option(None, "The picture (samples.png in RUN).", metavar="FILE.png"),
    device: Device = "auto",
    verbose: Verbose = False,
    output: OutputOptions = OutputOptions(),
) -> None:
    """Draw grids from the prior, z ~ N(0, temperature^2 I), with the trained model of RUN."""
    from vaefit.vae.runs.sample import SampleSettings
    from vaefit.vae.runs.sample import sample as draw_samples

    from ..output.terminal import new_table

    terminal = output.terminal()
    with terminal.progress():
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
