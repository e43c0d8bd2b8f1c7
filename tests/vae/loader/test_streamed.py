"""Tests of the memory that a streamed dataset takes."""

from __future__ import annotations

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

from vaefit.vae.environment.hardware import free_memory, total_memory

PEAK = """
import json, sys
from vaefit.benchmarks.counting.worker import peak_memory
from vaefit.vae.loader import SeededSplit, open_loader

before = None
for file, grids in zip(sys.argv[1::2], map(int, sys.argv[2::2])):
    with open_loader(file, SeededSplit(grids, 0.1), "train", 128, mode="stream", classes=10, window=4096) as loader:
        steps = sum(1 for _ in loader.epoch(0))
    print(json.dumps([steps, peak_memory()]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the most memory")
def test_memory_does_not_grow_with_the_dataset(tmp_path):
    cells = np.zeros((1 << 16, 16, 16), np.uint8)
    files = []
    for name, times in (("small", 1), ("large", 8)):
        files += [str(tmp_path / f"{name}.h5"), str(times * len(cells))]
        with h5py.File(files[-2], "w") as handle:
            grids = handle.create_dataset("grids", (times * len(cells), 16, 16), "u1", chunks=(4096, 16, 16))
            for part in range(times):
                grids[part * len(cells) : (part + 1) * len(cells)] = cells
    done = subprocess.run([sys.executable, "-c", PEAK, *files], capture_output=True, text=True, check=True)
    (few, small), (many, large) = map(json.loads, done.stdout.splitlines())
    assert (few, many) == (round(0.9 * (1 << 16)) // 128, round(0.9 * (1 << 19)) // 128)
    # 128 MiB of grids
    assert large - small < 16 << 20


def test_free_memory_is_less_than_all_of_it():
    assert 0 < free_memory() <= total_memory()
