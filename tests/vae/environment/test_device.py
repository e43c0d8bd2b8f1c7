"""A batch that no machine can hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

from vaefit.vae.environment.device import require_memory
from vaefit.vae.errors import RunError


def test_a_batch_that_exceeds_the_memory_is_refused() -> None:
    require_memory(32, (16, 16), 256)
    with pytest.raises(RunError, match=r"32 grids of 2,000,000 x 2,000,000, 10 classes: the batch does not fit"):
        require_memory(32, (2_000_000, 2_000_000), 10)


def test_a_check_refuses_it_before_it_reads_a_grid(vaefit_cli: Callable[..., Any], tmp_path: Path) -> None:
    with h5py.File(tmp_path / "huge.h5", "w") as handle:  # a file of some kilobytes, none of its chunks written
        handle.create_dataset("labels", (64, 10**6, 10**6), "u1", chunks=(1, 1000, 1000), compression="gzip")
    done = vaefit_cli("overfit", tmp_path / "huge.h5", "--classes", "4", "--out", tmp_path / "run")
    assert done.code == 3
    assert "32 grids of 1,000,000 x 1,000,000, 4 classes: the batch does not fit into memory" in done.err
