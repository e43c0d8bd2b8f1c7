"""`vaefit-cli evaluate`."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from ..options.common import AsJson, Backend, CacheDir, Device, Quiet


def evaluate(
    run: Annotated[Path, typer.Argument(readable=False, help="The folder of a run of `train` or `overfit`.")],
    data: Annotated[
        str | None, typer.Argument(help="Other data: file.h5 or file.h5:/dataset.", show_default="the run's own")
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="val|train|test|all", help="Grids to measure on (val; of other data, all).")
    ] = None,
    checkpoint: Annotated[
        str, typer.Option(metavar="best|last", help="The best weights, or those of the newest checkpoint.")
    ] = "best",
    batch_size: Annotated[int | None, typer.Option(help="Grids at once (as in the run).")] = None,
    cache_dir: CacheDir = None,
    device: Device = "auto",
    backend: Backend = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads; a small batch takes one.")] = None,
    out: Annotated[
        Path | None, typer.Option(readable=False, help="Folder for the result (./runs/evaluate-DATE-TIME).")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the evaluation in a folder that is not empty.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure the trained model of RUN on a split of its data, or on other data, with z = mu."""
    from vaefit.vae.runs.evaluate import EvaluationSettings
    from vaefit.vae.runs.evaluate import evaluate as measure

    from ..output.evaluation_tables import print_evaluated_on, print_evaluation
    from ..output.terminal import Terminal

    # what was typed is checked where the settings are made
    names: dict[str, Any] = {"split": split, "checkpoint": checkpoint}
    settings = EvaluationSettings(
        run, data, **names, batch_size=batch_size, cache_dir=cache_dir, device=device, backend=backend,
        threads=threads, out=out, overwrite=overwrite,
    )  # fmt: skip
    terminal = Terminal(as_json, quiet)
    # a model of one's own may print
    with terminal.progress() as progress, redirect_stdout(sys.stderr) if as_json else nullcontext():
        summary = measure(settings, progress.counting, lambda on: print_evaluated_on(terminal, on))
    print_evaluation(terminal, summary)
    terminal.json(summary.json())
