"""Checks of a training run before it is resumed, and the lock of its folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import RunError
from ..loader.split import ROLES
from ..results.training_summary import FORMAT
from ..run_folder.lock import locked
from ..run_folder.reader import StoredRun, TrainConfig, count_rows, read_json
from ..training.prepare import PreparedTraining
from ..training.settings import TrainSettings

_ANEW = "or start the run again, with --overwrite."
_log = logging.getLogger("vaefit")


@dataclass(frozen=True)
class ResumableRun:
    """A training run in its folder, which can be resumed."""

    folder: Path
    settings: TrainSettings
    began: TrainConfig
    """The data, the machine and the choices at the start of the run."""

    @classmethod
    @contextmanager
    def locked(cls, folder: Path) -> Iterator[ResumableRun]:
        """Context manager: read the run, and let no other process write in its folder; RunError where one does."""
        read_json(folder, "config.json")  # a folder that is not that of a run is left alone
        with locked(folder):
            yield cls.read(folder)

    @classmethod
    def read(cls, folder: Path) -> ResumableRun:
        """Read `config.json`; RunError where the folder holds no training run of this version."""
        run = StoredRun.read(folder)
        if not isinstance(run.config, TrainConfig) or not isinstance(run.settings, TrainSettings):
            do = "Pass the folder that `train` named."
            raise RunError("this is not the folder of a training run", str(folder), do=do)
        if run.config.format != FORMAT:
            got = f"format {run.config.format}; this one reads {FORMAT}"
            do = f"Go on with the version of vaefit that began it, {_ANEW}"
            raise RunError("the run is of another version of vaefit", str(folder / "config.json"), got, do)
        return cls(folder, run.settings, run.config)

    def check(self, prepared: PreparedTraining) -> None:
        """Raise RunError where the data, the split or the weights changed; warn where only the machine did."""
        began, dataset = self.began, prepared.dataset
        pairs: dict[str, tuple[Any, Any]] = {
            **began.dataset.changes(dataset),
            "split": (began.split, {role: prepared.split.size(role) for role in ROLES}),
            "class weights": (list(began.weights), prepared.weights.values.tolist()),
        }
        for name, (before, now) in pairs.items():
            if before != now:
                do = f"Put the data back as they were, {_ANEW}"
                raise RunError(f"the {name} changed since the run began", dataset.name, f"{now}, before {before}", do)
        machine = {
            "device": (began.device, str(prepared.device)),
            "backend": (began.backend, str(prepared.backend)),
            "torch": (began.versions.get("torch"), torch.__version__),
            "numpy": (began.versions.get("numpy"), np.__version__),
        }
        for name, (before, now) in machine.items():
            if before != now:
                words = f"the run began with {name} {before}, and this is {now}"
                _log.warning(f"{words}: its numbers may differ from here on")

    def check_ranks(self, ranks: int) -> None:
        """Raise RunError where a run that streams its grids has another number of processes than at its start.

        From memory the batches are the same for any number of processes, and their sums differ by rounding alone.
        """
        began = self.began
        if began.loader == "stream" and began.ranks != ranks:
            what = "a run that streams its grids goes on with as many processes as it began with"
            do = f"Start {began.ranks}, {_ANEW}" if began.ranks > 1 else f"Start it without torchrun, {_ANEW}"
            raise RunError(what, str(self.folder), f"{ranks}, begun with {began.ranks}", do)
        if began.ranks != ranks:
            _log.warning(f"the run began with ranks: {began.ranks}, and goes on with {ranks}: its batches are the same")

    def check_unbegun(self) -> None:
        """Raise RunError unless the run was cut off before its first checkpoint: then it may begin anew."""
        if count_rows(self.folder) > 1 or (self.folder / "result.json").exists():
            do = f"Put the folder `checkpoints` back, {_ANEW}"
            raise RunError("the checkpoints of the run are gone", str(self.folder), do=do)
