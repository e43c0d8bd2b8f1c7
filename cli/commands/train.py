"""`vaefit-cli train`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import typer

from ..options.parameters import (
    Data,
    FitOptions,
    ObjectiveOptions,
    OutputOptions,
    Overwrite,
    RankTimeout,
    RunOptions,
    option,
)
from ..options.settings import resumed_settings, train_settings


def train(
    ctx: typer.Context,
    *,
    data: Data = None,
    resume: Path | None = option(None, "Continue the run in this folder.", metavar="RUN"),
    recipe: str = option("default", "Recipe that every setting starts from.", metavar="default|adam|soft"),
    epochs: int = option(5, "Passes over the grids for training."),
    batch_size: int = option(128, "Grids in a batch."),
    limit: int | None = option(None, "Use at most this many grids; the weights come from the whole dataset."),
    val_share: float = option(0.1, "Share of the grids for validation."),
    test_share: float = option(0.0, "Share of the grids that is kept for a test."),
    split_seed: int = option(0, "Seed of the split into training, validation and test."),
    augment: str = option("none", "Turn, mirror or recolour grids at random.", metavar="rotate,flip,colours|none"),
    seed: int = option(0, "Seed of initialisation, order, augmentation and sampled z."),
    weights: str | None = option(None, "Counts that the class weights come from.", metavar="global|none"),
    objective_options: ObjectiveOptions,
    beta_warmup: float = option(0.0, "Epochs over which beta rises from 0."),
    beta_cycles: int = option(0, "Number of rises of beta from 0 over the whole run."),
    fit_options: FitOptions,
    patience: int | None = option(None, "Stop after this many validations without a better macro accuracy."),
    validate_every: int | None = option(None, "Updates between validations (an epoch)."),
    checkpoint_every: float = option(60.0, "Seconds between checkpoints."),
    precision: str = option("float32", "Precision of the network; the loss is float32.", metavar="float32|bfloat16"),
    compile: bool = option(False, "Compile the network with torch.compile.", "--compile"),
    loader: str = option("auto", "Hold the grids in memory, or read them each epoch.", metavar="auto|memory|stream"),
    workers: int = option(1, "Threads that read ahead, if the grids are streamed."),
    window: int = option(65_536, "Grids that are shuffled together, if they are streamed."),
    run_options: RunOptions,
    out: Path | None = option(None, "The run folder (./runs/train-DATE-TIME)."),
    overwrite: Overwrite = False,
    rank_timeout: RankTimeout = 600.0,
    output: OutputOptions,
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
    from ..torchrun import joined_ranks, restarted

    terminal = output.terminal()
    # a wrong option is reported before this process waits for another one
    settings = train_settings({**ctx.params, "data": data or "."})
    try:
        with joined_ranks(ctx) as job:
            with terminal.progress() as progress:
                started = partial(print_training_setup, terminal)
                watcher = TrainWatcher(counting=progress.counting, started=started, update=progress.training)
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
