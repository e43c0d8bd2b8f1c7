"""A training run found again in its folder: its settings, and whether its data are still the same."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import RunError
from ..report.stored import read_json
from ..report.stored_settings import CHANGED, stored_settings
from ..report.training_result import FORMAT, KIND
from .prepare import PreparedTraining
from .settings import LoaderMode, TrainSettings

_log = logging.getLogger("vaefit")


@dataclass(frozen=True)
class StoredTraining:
    """What `config.json` says of a training run."""

    folder: Path
    settings: TrainSettings
    threads: int
    """CPU threads that it ran on."""
    loader: LoaderMode
    """`memory` or `stream`: what `auto` takes depends on the free memory, and the order of the grids on that."""
    config: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> StoredTraining:
        """Read it; RunError where the folder holds no training run of this version."""
        config = read_json(folder, "config.json")
        where = str(folder / "config.json")
        if config.get("kind") != KIND:
            do = "Pass the folder that `train` named."
            raise RunError("this is not the folder of a training run", str(folder), do=do)
        if config.get("format") != FORMAT:
            by = config.get("versions", {}).get("vaefit", "unknown")
            do = "Go on with the version of vaefit that began it, or start it again, with --overwrite."
            raise RunError(
                "the run is of another version of vaefit",
                where,
                f"format {config.get('format')} by vaefit {by}; this one reads {FORMAT}",
                do,
            )
        settings = stored_settings(folder, config, TrainSettings)
        threads, loader = config.get("threads"), config.get("loader")
        if type(threads) is not int or loader not in ("memory", "stream"):
            raise RunError("the settings of the run cannot be read", where, f"threads {threads}, {loader}", CHANGED)
        before = config.get("versions", {}).get("torch")
        if before != torch.__version__:
            _log.warning(f"the run began with torch {before}, and this is {torch.__version__}: numbers may differ")
        return cls(folder, settings, threads, loader, config)

    def check(self, prepared: PreparedTraining) -> None:
        """Raise RunError, which names what changed, where data, split or weights are not what the run began with."""
        found, dataset = self.config["dataset"], prepared.dataset
        do = "Put the data back as they were, or start the run again, with --overwrite."
        pairs: list[tuple[str, Any, Any]] = [
            ("number of grids", found["grids"], dataset.grids),
            ("class counts", found["counts"], dataset.counts.tolist()),
            ("digest", found["digest"], dataset.digest),
            ("split", self.config["split"], {r: prepared.split.size(r) for r in ("train", "val", "test")}),
            ("class weights", self.config["weights"], prepared.weights.values.tolist()),
        ]
        for name, before, now in pairs:
            if before != now and None not in (before, now):  # a digest is not always taken
                raise RunError(f"the {name} changed since the run began", dataset.name, f"{now}, before {before}", do)


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
        except OSError as error:
            do = "Wait for it, or pass another --out."
            raise RunError("another process is training in this folder", str(folder), do=do) from error
        yield
    finally:
        os.close(handle)
