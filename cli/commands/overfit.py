"""`vaefit-cli overfit`."""

from __future__ import annotations

from pathlib import Path

import typer

from ..options.parameters import Data, FitOptions, ObjectiveOptions, OutputOptions, Overwrite, RunOptions, option
from ..options.settings import overfit_settings


def overfit(
    ctx: typer.Context,
    *,
    data: Data = None,
    recipe: str = option("default", "Recipe that every setting starts from.", metavar="default|adam|classic"),
    from_run: Path | None = option(
        None, "Start from a run of `train` or `overfit`, not from a recipe.", "--from", metavar="RUN"
    ),
    batch_size: int = option(32, "Grids in the fixed batch."),
    batch_seed: int = option(0, "Seed of the choice of the grids."),
    indices: str | None = option(None, "Indices of your own grids.", metavar="3,17,..."),
    allow_duplicates: bool = option(False, "Allow equal grids in the batch.", "--allow-duplicates"),
    resample: bool | None = option(
        None, "Draw each step's grids from shuffled copies of the batch.", "--resample/--no-resample"
    ),
    seed: int = option(0, "Seed of initialisation, sampled z and resampling."),
    iterations: int | None = option(None, "Largest number of updates (500)."),
    target: float | None = option(None, "Accuracy that every class needs (0.95)."),
    stop_when: str | None = option(None, "Condition for an early stop.", metavar="exact|target|never"),
    weights: str | None = option(None, "Counts that the class weights come from.", metavar="global|batch|none"),
    objective_options: ObjectiveOptions,
    beta_ramp: str | None = option(None, "Rise of beta, in epochs of 10 steps.", metavar="WARMUP,RAMP,MAX"),
    fit_options: FitOptions,
    diagnose: bool = option(
        False, "If it fails, find the cause by short reruns that change one thing each.", "--diagnose"
    ),
    run_options: RunOptions,
    graph: bool | None = option(
        None, "Run the steps as a CUDA graph, if it gives the same numbers.", "--graph/--no-graph"
    ),
    out: Path | None = option(None, "The run folder (./runs/overfit-DATE-TIME)."),
    overwrite: Overwrite = False,
    tensorboard: bool = option(False, "Write event files too, to tensorboard/ in the run folder.", "--tensorboard"),
    output: OutputOptions,
) -> None:
    """Fit one fixed batch and say MEMORISED, or what went wrong.

    DATA is file.h5 or file.h5:/dataset, integers (N, H, W); without it the embedded corpus of 80,000 synthetic grids.
    """
    terminal = output.terminal()
    settings = overfit_settings(ctx, terminal.note)

    from vaefit.vae.results.overfit_summary import RunSummary, SetupSummary
    from vaefit.vae.runs.overfit_run import Watcher, run_overfit

    from ..errors import InterruptedRunError
    from ..output.run_tables import print_overfit, print_overfit_setup

    with terminal.progress() as progress:
        watcher = Watcher(
            counting=progress.counting,
            started=lambda prepared, start: print_overfit_setup(
                terminal, SetupSummary.from_header(prepared, start, settings.recipe)
            ),
            step=lambda record: progress.fitting(record, settings.recipe.iterations),
            control=progress.diagnosing,
        )
        check = run_overfit(settings, watcher)
    summary = RunSummary.from_run(check)
    print_overfit(terminal, summary)
    terminal.json(summary.json())
    if summary.interrupted:
        raise InterruptedRunError
    raise typer.Exit(0 if summary.passed else 1)
