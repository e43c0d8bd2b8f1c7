"""`vaefit-cli overfit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options.parameters import (
    AsJson,
    Data,
    FitOptions,
    ObjectiveOptions,
    Overwrite,
    Quiet,
    RunOptions,
    option,
    path_option,
    with_option_groups,
)
from ..options.settings import overfit_settings


@with_option_groups
def overfit(
    ctx: typer.Context,
    *,
    data: Data = None,
    recipe: Annotated[
        str, option("Recipe that every setting starts from.", metavar="default|adam|classic")
    ] = "default",
    from_run: Annotated[
        Path | None,
        path_option("Start from a run of `train` or `overfit`, not from a recipe.", "--from", metavar="RUN"),
    ] = None,
    batch_size: Annotated[int, option("Grids in the fixed batch.")] = 32,
    batch_seed: Annotated[int, option("Seed of the choice of the grids.")] = 0,
    indices: Annotated[str | None, option("Indices of your own grids.", metavar="3,17,...")] = None,
    allow_duplicates: Annotated[bool, option("Allow equal grids in the batch.", "--allow-duplicates")] = False,
    resample: Annotated[
        bool | None, option("Draw each step's grids from shuffled copies of the batch.", "--resample/--no-resample")
    ] = None,
    seed: Annotated[int, option("Seed of initialisation, sampled z and resampling.")] = 0,
    iterations: Annotated[int | None, option("Largest number of updates (500).")] = None,
    target: Annotated[float | None, option("Accuracy that every class needs (0.95).")] = None,
    stop_when: Annotated[str | None, option("Condition for an early stop.", metavar="exact|target|never")] = None,
    weights: Annotated[
        str | None, option("Counts that the class weights come from.", metavar="global|batch|none")
    ] = None,
    objective_options: ObjectiveOptions,
    beta_ramp: Annotated[str | None, option("Rise of beta, in epochs of 10 steps.", metavar="WARMUP,RAMP,MAX")] = None,
    fit_options: FitOptions,
    diagnose: Annotated[
        bool, option("If it fails, find the cause by short reruns that change one thing each.", "--diagnose")
    ] = False,
    run_options: RunOptions,
    graph: Annotated[
        bool | None, option("Run the steps as a CUDA graph, if it gives the same numbers.", "--graph/--no-graph")
    ] = None,
    out: Annotated[Path | None, path_option("The run folder (./runs/overfit-DATE-TIME).")] = None,
    overwrite: Overwrite = False,
    tensorboard: Annotated[
        bool, option("Write event files too, to tensorboard/ in the run folder.", "--tensorboard")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fit one fixed batch and say MEMORISED, or what went wrong.

    DATA is file.h5 or file.h5:/dataset, integers (N, H, W); without it the embedded corpus of 80,000 synthetic grids.
    """
    from ..output.terminal import Terminal

    terminal = Terminal(as_json, quiet)
    settings = overfit_settings(ctx, terminal.note)

    from vaefit.vae.results.overfit_summary import RunSummary, SetupSummary
    from vaefit.vae.runs.overfit_run import Watcher, run_overfit

    from ..output.run_tables import print_overfit, print_overfit_setup

    with terminal.progress() as progress, terminal.user_output():
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
    raise typer.Exit(0 if summary.passed else 1)
