"""`vaefit-cli train`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
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
from ..options.settings import resumed_settings, train_settings


@with_option_groups
def train(
    ctx: typer.Context,
    *,
    data: Data = None,
    resume: Annotated[Path | None, path_option("Continue the run in this folder.", metavar="RUN")] = None,
    recipe: Annotated[str, option("Recipe that every setting starts from.", metavar="default|adam|soft")] = "default",
    epochs: Annotated[int, option("Passes over the grids for training.")] = 5,
    batch_size: Annotated[int, option("Grids in a batch.")] = 128,
    limit: Annotated[
        int | None, option("Use at most this many grids; the weights come from the whole dataset.")
    ] = None,
    val_share: Annotated[float, option("Share of the grids for validation.")] = 0.1,
    test_share: Annotated[float, option("Share of the grids that is kept for a test.")] = 0.0,
    split_seed: Annotated[int, option("Seed of the split into training, validation and test.")] = 0,
    augment: Annotated[
        str, option("Turn, mirror or recolour grids at random.", metavar="rotate,flip,colours|none")
    ] = "none",
    seed: Annotated[int, option("Seed of initialisation, order, augmentation and sampled z.")] = 0,
    weights: Annotated[str | None, option("Counts that the class weights come from.", metavar="global|none")] = None,
    objective_options: ObjectiveOptions,
    beta_warmup: Annotated[float, option("Epochs over which beta rises from 0.")] = 0.0,
    beta_cycles: Annotated[int, option("Number of rises of beta from 0 over the whole run.")] = 0,
    fit_options: FitOptions,
    patience: Annotated[int | None, option("Stop after this many validations without a better macro accuracy.")] = None,
    validate_every: Annotated[int | None, option("Updates between validations (an epoch).")] = None,
    checkpoint_every: Annotated[float, option("Seconds between checkpoints.")] = 60.0,
    precision: Annotated[
        str, option("Precision of the network; the loss is float32.", metavar="float32|bfloat16")
    ] = "float32",
    compile: Annotated[bool, option("Compile the network with torch.compile.", "--compile")] = False,
    loader: Annotated[
        str, option("Hold the grids in memory, or read them each epoch.", metavar="auto|memory|stream")
    ] = "auto",
    workers: Annotated[int, option("Threads that read ahead, if the grids are streamed.")] = 1,
    window: Annotated[int, option("Grids that are shuffled together, if they are streamed.")] = 65_536,
    run_options: RunOptions,
    out: Annotated[Path | None, path_option("The run folder (./runs/train-DATE-TIME).")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train on a whole dataset with the loss and the class weights of the check.

    DATA is file.h5 or file.h5:/dataset, integers (N, H, W), or a file with datasets named train and val; without it the
    embedded corpus of 80,000 synthetic grids.
    """
    from vaefit.cache.communicator import from_rank_zero
    from vaefit.vae.data.synthetic import embedded_corpus
    from vaefit.vae.runs.training_run import TrainWatcher, resume_training, run_training
    from vaefit.vae.training.interrupt import TrainingStopped

    from ..errors import StoppedError
    from ..output.run_tables import print_training, print_training_setup
    from ..output.terminal import Terminal
    from ..torchrun import joined_ranks, restarted

    terminal = Terminal(as_json, quiet)
    # a wrong option is reported before this process waits for another one
    settings = train_settings({**ctx.params, "data": data or "."})
    try:
        with joined_ranks() as job:
            with terminal.progress() as progress, terminal.user_output():
                watcher = TrainWatcher(
                    counting=progress.counting,
                    started=lambda setup: print_training_setup(terminal, setup),
                    update=progress.training,
                )
                begun = from_rank_zero(job, lambda: restarted(out)) if resume is None else resume
                if begun is not None:
                    summary = resume_training(begun, partial(resumed_settings, ctx), watcher, job)
                else:
                    if data is None:
                        corpus = from_rank_zero(job, lambda: embedded_corpus(terminal.note))
                        settings = replace(settings, data=str(corpus))
                    summary = run_training(settings, watcher, job)
            # printed before the other ranks leave: torchrun ends a job once one rank ended with a code
            print_training(terminal, summary)
            terminal.json(summary.json())
    except TrainingStopped as stopped:
        raise StoppedError(str(stopped)) from None
    raise typer.Exit(1 if summary.diverged else 0)
