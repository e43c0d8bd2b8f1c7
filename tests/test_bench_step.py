"""`benchmarks/step.py` runs, and prints no time where the loops do not agree."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def bench(monkeypatch, capsys, dataset):
    """Run the script in this process, tiny; gives its exit code and what it printed."""

    def call(*arguments):
        monkeypatch.syspath_prepend(str(BENCHMARKS))
        words = ["--no-peers", "--rounds", "1", "--steps", "4", *arguments]
        monkeypatch.setattr(sys, "argv", ["step.py", str(dataset), *words])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(BENCHMARKS / "step.py"), run_name="__main__")
        return stopped.value.code, capsys.readouterr()

    return call


def test_it_times_both_loops(bench):
    code, printed = bench("--json")
    found = json.loads(printed.out)
    assert code == 0
    assert {"plain", "vaefit, adam", "vaefit"} == found["step"].keys()
    for row in found["step"].values():
        assert 0 < row["low_ms"] <= row["median_ms"] <= row["high_ms"]
    assert found["step"]["plain"]["plain_over_this"] == 1
    assert found["batch"] == [32, 8, 8]


def test_a_ratio_that_is_missed(bench):
    code, printed = bench("--require", "1000")
    assert code == 1
    assert "plain" in printed.out


def test_red_parity_prints_no_time(bench, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import plain

    honest = plain.naive_focal_loss
    monkeypatch.setattr(plain, "naive_focal_loss", lambda *arguments: 1.01 * honest(*arguments))
    code, printed = bench("--json")
    assert code == 1
    assert printed.out == ""
    assert "parity is red" in printed.err
