"""`vaefit-cli overfit`."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from ..options.common import AsJson, Backend, CacheDir, Classes, Data, Device, EffectiveB, IgnoreIndex, Quiet
from ..options.overfit_settings import check_settings
from ..options.recipe import (
    Beta,
    Betas,
    ChosenRate,
    Clip,
    DecaySteps,
    FreeBits,
    Gamma,
    Init,
    LatentDim,
    LatentMode,
    Model,
    ModelArguments,
    NoScan,
    Optimiser,
    Overwrite,
    RateDecay,
    Reduction,
    Scheme,
    Smooth,
    Warmup,
    WeightsFile,
    WeightsPower,
)


def overfit(
    ctx: typer.Context,
    data: Data = None,
    recipe: Annotated[
        str, typer.Option(metavar="default|adam|classic", help="Where every setting starts from.")
    ] = "default",
    from_run: Annotated[
        Path | None,
        typer.Option("--from", readable=False, metavar="RUN", help="Start from a run of `train`, not from a recipe."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Grids in the fixed batch.")] = 32,
    batch_seed: Annotated[int, typer.Option(help="Drives only the choice of the grids.")] = 0,
    indices: Annotated[str | None, typer.Option(metavar="3,17,...", help="Your own grids, by index.")] = None,
    allow_duplicates: Annotated[
        bool, typer.Option("--allow-duplicates", help="Equal grids may be in the batch.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Drives initialisation, sampled z and resampling.")] = 0,
    iterations: Annotated[int | None, typer.Option(help="Most updates (500).")] = None,
    target: Annotated[float | None, typer.Option(help="Accuracy that every class needs (0.95).")] = None,
    stop_when: Annotated[str | None, typer.Option(metavar="exact|target|never", help="When to stop early.")] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="global|batch|none", help="Which counts the class weights come from.")
    ] = None,
    scheme: Scheme = None,
    smooth: Smooth = None,
    effective_b: EffectiveB = None,
    weights_power: WeightsPower = None,
    weights_file: WeightsFile = None,
    no_scan: NoScan = False,
    gamma: Gamma = None,
    reduction: Reduction = None,
    beta: Beta = None,
    beta_ramp: Annotated[
        str | None, typer.Option(metavar="WARMUP,RAMP,MAX", help="beta over epochs of 10 steps.")
    ] = None,
    free_bits: FreeBits = None,
    z: LatentMode = None,
    init: Init = None,
    resample: Annotated[
        bool | None,
        typer.Option("--resample/--no-resample", help="Draw each step's grids from shuffled copies of the batch."),
    ] = None,
    optimiser: Optimiser = None,
    lr: ChosenRate = None,
    betas: Betas = None,
    warmup: Warmup = None,
    lr_decay: RateDecay = None,
    decay_steps: DecaySteps = None,
    clip: Clip = None,
    latent_dim: LatentDim = None,
    model: Model = None,
    model_arg: ModelArguments = None,
    diagnose: Annotated[
        bool, typer.Option("--diagnose", help="If it fails, find out why, by short reruns that change one thing each.")
    ] = False,
    classes: Classes = None,
    ignore_index: IgnoreIndex = None,
    cache_dir: CacheDir = None,
    device: Device = "auto",
    backend: Backend = "auto",
    graph: Annotated[
        bool | None, typer.Option("--graph/--no-graph", help="Steps as a CUDA graph (where it gives the same numbers).")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; a small batch takes one.")] = None,
    out: Annotated[Path | None, typer.Option(readable=False, help="The run folder (./runs/overfit-DATE-TIME).")] = None,
    overwrite: Overwrite = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Event files too, in the run folder's tensorboard/.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fit one fixed batch and say MEMORISED, or what went wrong.

    DATA is file.h5 or file.h5:/dataset, integers (N, H, W); without it the embedded corpus of 80,000 synthetic grids.
    """
    from ..output.terminal import Terminal

    terminal = Terminal(as_json, quiet)
    settings = check_settings(ctx, terminal.note)

    from vaefit.vae.results.overfit_summary import RunSummary, SetupSummary
    from vaefit.vae.runs.overfit_run import Watcher, run_overfit

    from ..output.overfit_tables import print_result, print_setup

    with terminal.progress() as progress:
        watcher = Watcher(
            counting=progress.counting,
            started=lambda prepared, start: print_setup(
                terminal, SetupSummary.from_header(prepared, start, settings.recipe)
            ),
            step=lambda record: progress.fitting(record, settings.recipe.iterations),
            control=progress.diagnosing,
        )
        # a model of one's own may print
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            check = run_overfit(settings, watcher)
    summary = RunSummary.from_run(check)
    print_result(terminal, summary)
    terminal.json(summary.json())
    raise typer.Exit(0 if summary.passed else 1)
