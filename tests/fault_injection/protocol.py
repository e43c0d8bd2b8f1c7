"""protocol."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

Do = Literal["slices", "chunks", "whole", "open", "ours", "cached", "stored", "rewrite"]


End = Literal["counts", "error", "traceback", "memory", "time", "crash", "killed"]


@dataclass(frozen=True)
class Task:
    """Task of a fork, with its limits."""

    do: Do
    """`slices`, `chunks`, `whole` and `open` use h5py alone (see `plain.WAYS`), `ours` counts without the cache,
    `cached` with it, `stored` takes counts from the cache or fails, `rewrite` counts and writes the cache again and
    again until it is killed."""
    file: str
    """Relative to the folder."""
    folder: str
    dataset: str | None = None
    cache_dir: str | None = None
    cpu_s: int = 60
    wall_s: float = 120.0
    memory: int | None = None
    """Bytes of address space beside what the imports take."""
    save_every: float | None = None
    """Seconds between two looks at whether a scan should be saved; None leaves it as it is."""
    user: int | None = None
    """The user that the fork becomes; only root can."""
    file_bytes: int | None = None
    """The longest file that may be written."""
    kill_after: float | None = None
    """Seconds after which the fork gets SIGKILL."""


@dataclass(frozen=True)
class Report:
    """End of a fork, with its counts or its error."""

    end: End
    counts: dict[int, int] = field(default_factory=dict)
    """Label to count, of those that occur."""
    text: str = ""
    """The error, the traceback, or the signal."""
    source: str = ""
    """`cache` or `scan`."""
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    peak: int = 0
    """Bytes of memory beyond those before the task."""

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Parse a line that `main` printed."""
        body = json.loads(text)
        body["counts"] = {int(label): count for label, count in body["counts"].items()}
        body["warnings"] = tuple(body["warnings"])
        return cls(**body)
