"""A training run found again in its folder: its settings, and whether what it began with is still there."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import torch

from ..errors import RunError
from ..loader.split import ROLES
from ..run_folder.reader import read_json
from ..run_folder.settings_reader import CHANGED, stored_settings
from ..results.training_summary import FORMAT, KIND, METRICS
from ..training.prepare import PreparedTraining
from ..training.settings import TrainSettings
from ..training.progress import ChosenRate

_ANEW = "or start the run again, with --overwrite."
_log = logging.getLogger("vaefit")




@dataclass(frozen=True)
class CountedDataset:
    """The dataset of a run."""

    digest: str | None
    """None where it was not taken."""
    grids: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class RunBeginning:
    """What a run began with, beside its settings."""

    device: str
    backend: str
    versions: dict[str, str]
    threads: int
    """CPU threads that it runs on."""
    loader: Literal["memory", "stream"]
    """What `auto` takes depends on the free memory, and the order of the grids on that."""
    rate: ChosenRate
    dataset: CountedDataset
    weights: tuple[float, ...]
    split: dict[str, int]
    """Grids by role."""
    ranks: int = 1
    """Processes that trained together."""


@dataclass(frozen=True)
class ResumableRun:
    """What `config.json` says of a training run."""

    folder: Path
    settings: TrainSettings
    began: RunBeginning

    @classmethod
    def read(cls, folder: Path) -> ResumableRun:
        """Read it; RunError where the folder holds no training run of this version."""
        config = read_json(folder, "config.json")
        where = str(folder / "config.json")
        if config.get("kind") != KIND:
            do = "Pass the folder that `train` named."
            raise RunError("this is not the folder of a training run", str(folder), do=do)
        if config.get("format") != FORMAT:
            got = f"format {config.get('format')}; this one reads {FORMAT}"
            do = f"Go on with the version of vaefit that began it, {_ANEW}"
            raise RunError("the run is of another version of vaefit", where, got, do)
        settings = stored_settings(folder, config, TrainSettings)
        try:
            return cls(folder, settings, msgspec.convert(config, RunBeginning))
        except msgspec.ValidationError as error:
            raise RunError("the settings of the run cannot be read", where, str(error), CHANGED) from error

    def check(self, prepared: PreparedTraining) -> None:
        """Raise RunError, which names what changed, where data, split or weights are not what the run began with.

        Where only the machine changed, that is a warning.
        """
        began, dataset = self.began, prepared.dataset
        digests = (began.dataset.digest, dataset.digest)
        pairs: dict[str, tuple[Any, Any]] = {
            "number of grids": (began.dataset.grids, dataset.grids),
            "class counts": (list(began.dataset.counts), dataset.counts.tolist()),
            "digest": (None, None) if None in digests else digests,
            "split": (began.split, {role: prepared.split.size(role) for role in ROLES}),
            "class weights": (list(began.weights), prepared.weights.values.tolist()),
        }
        for name, (before, now) in pairs.items():
            if before != now:
                do = f"Put the data back as they were, {_ANEW}"
                raise RunError(f"the {name} changed since the run began", dataset.name, f"{now}, before {before}", do)
        versions = began.versions
        machine = {
            "device": (began.device, str(prepared.device)),
            "backend": (began.backend, str(prepared.backend)),
            "torch": (versions.get("torch"), torch.__version__),
            "numpy": (versions.get("numpy"), np.__version__),
        }
        for name, (then, here) in machine.items():
            if then != here:
                _log.warning(
                    f"the run began with {name} {then}, and this is {here}: its numbers may differ from here on"
                )

    def check_ranks(self, ranks: int) -> None:
        """Raise RunError where so many processes cannot go on; what is streamed is dealt out by their number.

        From memory the batches are the same whatever their number, and their sums differ by rounding alone.
        """
        began = self.began
        if began.loader == "stream" and began.ranks != ranks:
            what = "a run that streams its grids goes on with as many processes as it began with"
            do = f"Start {began.ranks}, {_ANEW}" if began.ranks > 1 else f"Start it without torchrun, {_ANEW}"
            raise RunError(what, str(self.folder), f"{ranks}, begun with {began.ranks}", do)
        if began.ranks != ranks:
            _log.warning(f"the run began with ranks: {began.ranks}, and goes on with {ranks}: its batches are the same")

    def check_unbegun(self) -> None:
        """Raise RunError unless the run was cut off before its first checkpoint: it may be begun anew then."""
        metrics = self.folder / METRICS
        rows = metrics.read_text(encoding="utf-8", errors="replace").count("\n") if metrics.is_file() else 0
        if rows > 2 or (self.folder / "result.json").exists():
            do = f"Put the folder `checkpoints` back, {_ANEW}"
            raise RunError("the checkpoints of the run are gone", str(self.folder), do=do)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from training in the folder meanwhile; RunError where one does. A kill ends it too."""
    try:
        import fcntl
    except ImportError:  # a system without such locks
        yield
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        do = "Pass the folder that `train` named."
        raise RunError("the run folder cannot be opened", str(folder), error.strerror or str(error), do) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            do = "Wait for it, or pass another --out."
            raise RunError("another process is training in this folder", str(folder), do=do) from error
        except OSError as error:  # some network disks have no locks
            _log.warning(f"{folder} cannot be locked ({error.strerror}): let no other process train in it")
        yield
    finally:
        os.close(handle)
