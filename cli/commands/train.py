"""`vaefit-cli train`."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..options.common import AsJson, Backend, CacheDir, Classes, Data, Device, EffectiveB, IgnoreIndex, Quiet
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
from ..options.train_settings import resumed, train_settings


def train(
    ctx: typer.Context,
    data: Data = None,
    resume: Annotated[
        Path | None, typer.Option(readable=False, metavar="RUN", help="Go on with the run in this folder.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(metavar="default|adam|soft", help="Where every setting starts from.")
    ] = "default",
    epochs: Annotated[int, typer.Option(help="Passes over the grids for training.")] = 5,
    batch_size: Annotated[int, typer.Option(help="Grids in a batch.")] = 128,
    limit: Annotated[
        int | None, typer.Option(help="Use at most so many grids of the dataset; the weights come from all of it.")
    ] = None,
    val_share: Annotated[float, typer.Option(help="Share of the grids for validation.")] = 0.1,
    test_share: Annotated[float, typer.Option(help="Share of the grids that is kept for a test.")] = 0.0,
    split_seed: Annotated[int, typer.Option(help="Drives only which grids are for what.")] = 0,
    augment: Annotated[
        str, typer.Option(metavar="rotate,flip,colours|none", help="Turn, mirror or recolour grids at random.")
    ] = "none",
    seed: Annotated[int, typer.Option(help="Drives initialisation, order, augmentation and sampled z.")] = 0,
    weights: Annotated[
        str | None, typer.Option(metavar="global|none", help="Class weights of the whole dataset, or none.")
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
    beta_warmup: Annotated[float, typer.Option(help="Epochs over which beta rises from 0.")] = 0.0,
    beta_cycles: Annotated[int, typer.Option(help="How often beta rises from 0 over the whole run.")] = 0,
    free_bits: FreeBits = None,
    z: LatentMode = None,
    init: Init = None,
    optimiser: Optimiser = None,
    lr: ChosenRate = None,
    betas: Betas = None,
    warmup: Warmup = None,
    lr_decay: RateDecay = None,
    decay_steps: DecaySteps = None,
    clip: Clip = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many validations without a better macro accuracy.")
    ] = None,
    validate_every: Annotated[int | None, typer.Option(help="Updates between validations (an epoch).")] = None,
    checkpoint_every: Annotated[float, typer.Option(help="Seconds between checkpoints.")] = 60.0,
    precision: Annotated[
        str, typer.Option(metavar="float32|bfloat16", help="What the network computes in; the loss is float32.")
    ] = "float32",
    compile_model: Annotated[bool, typer.Option("--compile", help="Compile the network with torch.compile.")] = False,
    loader: Annotated[
        str, typer.Option(metavar="auto|memory|stream", help="Hold the grids in memory, or read them each epoch.")
    ] = "auto",
    workers: Annotated[int, typer.Option(help="Threads that read ahead, where grids are streamed.")] = 1,
    window: Annotated[int, typer.Option(help="Grids that are shuffled together, where they are streamed.")] = 65_536,
    latent_dim: LatentDim = None,
    model: Model = None,
    model_arg: ModelArguments = None,
    classes: Classes = None,
    ignore_index: IgnoreIndex = None,
    cache_dir: CacheDir = None,
    device: Device = "auto",
    backend: Backend = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads; a small batch takes one.")] = None,
    out: Annotated[Path | None, typer.Option(readable=False, help="The run folder (./runs/train-DATE-TIME).")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train on a whole dataset with the loss and the class weights of the check.

    DATA is file.h5 or file.h5:/dataset, integers (N, H, W), or a file with datasets named train and val; without it the
    embedded corpus of 80,000 synthetic grids.
    """
    from ..output.terminal import Terminal

    terminal = Terminal(as_json, quiet)

    from vaefit.cache.communicator import from_rank_zero
    from vaefit.vae.data.default_corpus import embedded_corpus
    from vaefit.vae.runs.training_run import TrainWatcher, resume_training, run_training
    from vaefit.vae.training.interrupt import TrainingStopped

    from ..errors import StoppedError
    from ..output.training_tables import print_training, print_training_setup
    from ..torchrun import joined_ranks, restarted

    # what is wrong with the options is found before anybody waits for another process
    settings = train_settings({**ctx.params, "data": data or "."}, terminal.note)
    try:
        with joined_ranks() as job:
            # a model of one's own may print
            with terminal.progress() as progress, redirect_stdout(sys.stderr) if as_json else nullcontext():
                watcher = TrainWatcher(
                    counting=progress.counting,
                    started=lambda setup: print_training_setup(terminal, setup),
                    update=progress.training,
                )
                begun = from_rank_zero(job, lambda: restarted(out)) if resume is None else resume
                if begun is not None:
                    summary = resume_training(begun, resumed(ctx), watcher, job)
                else:
                    if data is None:
                        corpus = from_rank_zero(job, lambda: embedded_corpus(terminal.note))
                        settings = replace(settings, data=str(corpus))
                    summary = run_training(settings, watcher, job)
            # before the others leave: torchrun ends what is left of a job of which one rank ended with a code
            print_training(terminal, summary)
            terminal.json(summary.json())
    except TrainingStopped as stopped:
        raise StoppedError(str(stopped)) from None
    raise typer.Exit(1 if summary.diverged else 0)
