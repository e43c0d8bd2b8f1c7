"""`vaefit-cli evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..options.parameters import Backend, CacheDir, Device, OutputOptions, Run, Threads, Verbose, option


def evaluate(
    run: Run,
    data: Annotated[
        str | None, typer.Argument(help="Other data: file.h5 or file.h5:/dataset.", show_default="the run's own")
    ] = None,
    split: str | None = option(None, "Grids to measure on (val; of other data, all).", metavar="val|train|test|all"),
    checkpoint: str = option("best", "The best weights, or those of the newest checkpoint.", metavar="best|last"),
    batch_size: int | None = option(None, "Grids at once (as in the run)."),
    cache_dir: CacheDir = None,
    device: Device = "auto",
    backend: Backend = "auto",
    threads: Threads = None,
    out: Path | None = option(None, "Folder for the result (./runs/evaluate-DATE-TIME)."),
    overwrite: bool = option(False, "Replace the evaluation in a folder that is not empty.", "--overwrite"),
    verbose: Verbose = False,
    output: OutputOptions = OutputOptions(),
) -> None:
    """Measure the trained model of RUN on a split of its data, or on other data, with z = mu."""
    from vaefit.vae.runs.evaluate import EvaluationSettings
    from vaefit.vae.runs.evaluate import evaluate as measure

    from ..output.run_tables import print_evaluation, print_evaluation_setup

    # the settings check the words that were typed
    names: dict[str, Any] = {"split": split, "checkpoint": checkpoint}
    settings = EvaluationSettings(
        run, data, **names, batch_size=batch_size, cache_dir=cache_dir, device=device, backend=backend,
        threads=threads, out=out, overwrite=overwrite,
    )  # fmt: skip
    terminal = output.terminal()
    with terminal.progress() as progress:
        summary = measure(settings, progress.counting, lambda on: print_evaluation_setup(terminal, on))
    print_evaluation(terminal, summary)
    terminal.json(summary.json())
