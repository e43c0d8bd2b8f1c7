"""Start of this process: alone, or as one rank of a job. Needs no torch, so that the check is fast."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass

_REQUIRED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Launch:
    """Environment variables that torchrun, or a compatible launcher, sets for one process."""

    rank: int
    size: int
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

        Without the local variables, each machine has one rank. Raises SettingError for a variable that is no number.
        """
        if any(name not in environment for name in _REQUIRED) or environment["WORLD_SIZE"] == "1":
            return None

        def number(name: str, default: str) -> int:
            text = environment.get(name, default)
            if not text.isdecimal():
                from vaefit.cache.errors import SettingError  # imports numpy

                do = "Start it by torchrun, or unset it to run one process by itself."
                raise SettingError("the variable of the environment is no number", name, text, do)
            return int(text)

        return cls(
            rank=number("RANK", "0"),
            size=number("WORLD_SIZE", "1"),
            local_rank=number("LOCAL_RANK", "0"),
            local_size=number("LOCAL_WORLD_SIZE", "1"),
            restarts=number("TORCHELASTIC_RESTART_COUNT", "0"),
        )
