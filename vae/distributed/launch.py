"""How this process was started: by itself, or as one of the ranks of a job. Needs no torch, so that asking is free."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Launch:
    """What torchrun, or whatever speaks its language, says of one process in its environment."""

    rank: int
    size: int
    local_rank: int
    """Among those on this machine."""
    local_size: int
    restarts: int
    """How often the job was begun anew since a rank was lost."""

    @property
    def job(self) -> str:
        """The same for a process and for the one that takes its place after a restart; no other job's."""
        return f"{os.environ.get('TORCHELASTIC_RUN_ID', '')}/{platform.node()}/{os.getppid()}"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Launch | None:
        """None for a process by itself, which a job of one rank is as well; SettingError for what is no number.

        Whoever starts ranks without saying how many are on a machine is taken to start one on each.
        """
        if any(name not in environment for name in _NEEDED) or environment["WORLD_SIZE"] == "1":
            return None

        def number(name: str, other: str) -> int:
            text = environment.get(name, other)
            if not text.isdecimal():
                from vaefit.cache.errors import SettingError  # for which numpy is imported

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
