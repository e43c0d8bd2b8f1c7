"""Cost of the training loop over its bare steps: batches, labels, monitor, sums, rows and a checkpoint."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vaefit.vae.loader import Loader, open_loader
from vaefit.vae.model.adapter import find_adapter
from vaefit.vae.model.network import build_network
from vaefit.vae.objective.objective import Objective
from vaefit.vae.optim.train_step import Step
from vaefit.vae.run_folder.training_folder import TrainFolder
from vaefit.vae.training.interrupt import StopRequest
from vaefit.vae.training.loop import Training
from vaefit.vae.training.progress import Plan
from vaefit.vae.training.settings import RECIPES
from vaefit.vae.training.validation import Validator

from ..threads import cpu_threads
from .worker import Load

FEW = 8
"""Grids of each of the two validations: the cost of validation is not part of the loop's."""


def epoch_over_steps(load: Load, updates: int, rounds: int) -> float:
    """Return the CPU time of `updates` updates of the training loop over that of as many bare steps on one batch.

    Both run in turns on one CPU thread, with the default recipe of training; the loader is that of `load`.
    """
    with (
        cpu_threads(1),
        tempfile.TemporaryDirectory(prefix="vaefit-bench-") as folder,
        open_loader(load.data, load.split, "train", load.batch_size, mode=load.mode, classes=load.classes) as loader,
    ):
        batch = next(iter(loader.epoch(0)))
        ratios = []
        for number in range(rounds):
            bare = _bare(_step(batch, load.classes), batch, updates)
            ratios.append(
                _loop(_step(batch, load.classes), loader, batch[:FEW], updates, Path(folder) / f"{number}") / bare
            )
    return statistics.median(ratios)


def _step(batch: NDArray[np.integer], classes: int) -> Step:
    _, height, width = batch.shape
    model = build_network(None, classes, height, width, None, 0, torch.device("cpu"))
    labels = torch.from_numpy(batch.astype(np.int64))
    objective = Objective.build(np.ones(classes), RECIPES["default"], None, "auto", torch.device("cpu"))
    return Step.build(model, find_adapter(model, labels, classes), objective, RECIPES["default"])


def _bare(step: Step, batch: NDArray[np.integer], updates: int) -> float:
    """Return the CPU seconds of bare steps."""
    labels = torch.from_numpy(batch.astype(np.int64))
    inputs = step.adapter.inputs(labels, step.model)
    start = time.process_time()
    for _ in range(updates):
        step.update(step.forward(inputs, labels, 0.0), 1e-4)
    return time.process_time() - start


def _loop(step: Step, loader: Loader, few: NDArray[np.integer], updates: int, folder: Path) -> float:
    """Return the CPU seconds of the training loop, with its files."""
    recipe = RECIPES["default"]
    start = time.process_time()
    with (
        TrainFolder.claimed(folder, overwrite=False) as claimed,
        claimed.recording(step.adapter.classes, None) as recorder,
    ):
        plan = Plan(updates, loader.steps, updates, None, 1e9)
        validator = Validator(step, lambda: iter([few]), len(few), None)
        Training(step, recipe, plan, loader, validator, recorder, 0, None, None).run(StopRequest())
    return time.process_time() - start
