"""Start of this process: alone, or as one rank of a job. Needs no torch, so that the check is fast."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass

_REQUIRED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_NUMBERS = {
    "RANK": 0,
    "WORLD_SIZE": 1,
    "MASTER_PORT": 0,
    "LOCAL_RANK": 0,
    "LOCAL_WORLD_SIZE": 1,
    "TORCHELASTIC_RESTART_COUNT": 0,
}
"""Variable of each number of `Launch`, with its default."""


@dataclass(frozen=True)
class Launch:
    """Environment variables that torchrun, or a compatible launcher, sets for one process."""

    address: str
    """Machine of rank 0, or of torchrun's store for the job; `port` is the port there."""
    keeps_store: bool
    """True for the rank that keeps the store: rank 0, where torchrun does not."""
    rank: int
    size: int
    port: int
    local_rank: int
    """Rank among the processes on this machine."""
    local_size: int
    """Number of processes on this machine."""
    restarts: int
    """Number of restarts of the job after the loss of a rank."""

    @property
    def job(self) -> str:
        """Name of the job; a restart keeps it, and no other job has it."""
        return f"{os.environ.get('TORCHELASTIC_RUN_ID', '')}/{platform.node()}/{os.getppid()}"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Launch | None:
        """Return the start of this process; None for a single process, as in a job of one rank.

        Without the local variables, each machine has one rank. Raises SettingError for a variable that is no number,
        and for a rank outside the job.
        """
        if any(name not in environment for name in _REQUIRED) or environment["WORLD_SIZE"] == "1":
            return None
        texts = {name: environment.get(name, str(default)) for name, default in _NUMBERS.items()}
        for name, text in texts.items():
            if not text.isdecimal():
                do = "Start it by torchrun, or unset it to run one process by itself."
                raise _setting_error("the variable of the environment is no number", name, text, do)
        numbers = {name: int(text) for name, text in texts.items()}
        rank, size = numbers["RANK"], numbers["WORLD_SIZE"]
        if rank >= size:
            do = "Number the processes from 0 to WORLD_SIZE - 1."
            raise _setting_error("the rank lies outside the job", "RANK", f"{rank}, WORLD_SIZE {size}", do)
        keeps_store = rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        return cls(environment["MASTER_ADDR"], keeps_store, *numbers.values())


def _setting_error(*parts: str) -> ValueError:
    from vaefit.cache.errors import SettingError  # imports numpy

    return SettingError(*parts)
