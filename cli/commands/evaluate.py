"""`vaefit-cli evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..options.parameters import AsJson, Backend, CacheDir, Device, Quiet, Run, Threads, option, path_option


def evaluate(
    run: Run,
    data: Annotated[
        str | None, typer.Argument(help="Other data: file.h5 or file.h5:/dataset.", show_default="the run's own")
    ] = None,
    split: Annotated[
        str | None, option("Grids to measure on (val; of other data, all).", metavar="val|train|test|all")
    ] = None,
    checkpoint: Annotated[
        str, option("The best weights, or those of the newest checkpoint.", metavar="best|last")
    ] = "best",
    batch_size: Annotated[int | None, option("Grids at once (as in the run).")] = None,
    cache_dir: CacheDir = None,
    device: Device = "auto",
    backend: Backend = "auto",
    threads: Threads = None,
    out: Annotated[Path | None, path_option("Folder for the result (./runs/evaluate-DATE-TIME).")] = None,
    overwrite: Annotated[bool, option("Replace the evaluation in a folder that is not empty.", "--overwrite")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure the trained model of RUN on a split of its data, or on other data, with z = mu."""
    from vaefit.vae.runs.evaluate import EvaluationSettings
    from vaefit.vae.runs.evaluate import evaluate as measure

    from ..output.run_tables import print_evaluation, print_evaluation_setup
    from ..output.terminal import Terminal

    # the settings check the words that were typed
    names: dict[str, Any] = {"split": split, "checkpoint": checkpoint}
    settings = EvaluationSettings(
        run, data, **names, batch_size=batch_size, cache_dir=cache_dir, device=device, backend=backend,
        threads=threads, out=out, overwrite=overwrite,
    )  # fmt: skip
    terminal = Terminal(as_json, quiet)
    with terminal.progress() as progress, terminal.user_output():
        summary = measure(settings, progress.counting, lambda on: print_evaluation_setup(terminal, on))
    print_evaluation(terminal, summary)
    terminal.json(summary.json())
