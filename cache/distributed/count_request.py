"""What is asked of a dataset when it is counted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CountRequest:
    """Which labels are counted, and what may answer besides a scan; as the arguments of `count_dataset`."""

    classes: int | None = None
    ignore_index: int | None = None
    cache_dir: str | Path | None = None
    use_cache: bool = True
    rebuild: bool = False
