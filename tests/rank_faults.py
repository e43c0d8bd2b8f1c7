"""Faults of one rank of a job while it trains; `run_job` calls these functions in the rank's process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

RANK, UPDATE = 1, 3
"""The rank with the fault, and the number of updates before it."""


def asked_to_stop(rank: int) -> None:
    """SIGTERM reaches one rank alone."""
    _at_an_update(rank, lambda: os.kill(os.getpid(), signal.SIGTERM))


def killed(rank: int) -> None:
    """The system kills the rank."""
    _at_an_update(rank, lambda: os.kill(os.getpid(), signal.SIGKILL))


def killed_at_the_start(rank: int) -> None:
    """The system kills the rank while the others wait for its copy of the model."""
    from vaefit.vae.distributed.ddp_step import DistributedStep

    if rank == RANK:
        DistributedStep.from_step = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign,assignment]


def unreadable(rank: int) -> None:
    """The rank cannot read the file any more."""

    def fail() -> None:
        from vaefit.cache.errors import DataError

        raise DataError("grids 3 to 4 cannot be read", "x.h5:/grids", "no disk", "Check the disk.")

    _at_an_update(rank, fail)


def mistaken(rank: int) -> None:
    """The rank raises an error of the code."""

    def fail() -> None:
        raise AssertionError("never here")

    _at_an_update(rank, fail)


def with_another_seed(rank: int) -> list[str] | None:
    """The rank gets another command line."""
    return ["train", "grids.h5", "--seed", "3"] if rank == RANK else None


def counting(rank: int) -> list[str] | None:
    """The rank counts, and the others train."""
    return ["weights", "grids.h5"] if rank == RANK else None


def _at_an_update(rank: int, happen: Callable[[], None]) -> None:
    from vaefit.vae.training.loop import Training

    if rank != RANK:
        return
    update: Callable[..., None] = Training._update

    def changed(self: Training, grids: Any) -> None:
        if self.progress.step == UPDATE:
            happen()
        update(self, grids)

    Training._update = changed  # type: ignore[method-assign]


def reading_a_copy(rank: int) -> None:
    """The rank sees, under the paths of the data, the files of the same names in the folder `copies`."""
    from dataclasses import replace

    from vaefit.cache.distributed import copies

    compare = copies.require_same_copies

    def elsewhere(ranks: Any, data: Any, counted: Any, cache_dir: Any) -> None:
        there = [at.location.file.parent / "copies" / at.location.file.name for at in counted]
        moved = [
            replace(one, location=replace(one.location, file=file)) for one, file in zip(counted, there, strict=True)
        ]
        compare(ranks, there, moved, cache_dir)

    if rank == RANK:
        copies.require_same_copies = elsewhere


def with_other_weights(rank: int) -> list[str]:
    """The rank has other weights under the path of the file."""
    os.chdir("copies" if rank == RANK else ".")
    return ["train", "grids.h5", "--weights-file", "weights.json"]


def on_another_device(rank: int) -> None:
    """The rank takes another kind of device."""
    import torch

    from vaefit.vae.distributed.process_group import ProcessGroup

    check = ProcessGroup.check_device
    if rank == RANK:
        ProcessGroup.check_device = lambda job, _: check(job, torch.device("meta"))  # type: ignore[method-assign]
