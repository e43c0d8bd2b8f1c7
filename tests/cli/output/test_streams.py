"""Tests of the output streams: names with terminal escapes, and a stdout that cannot be written to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ODD = "a\x1b[31mred\x07\nb\u202e.h5"
SHOWN = "a\\x1b[31mred\\x07\\nb\\u202e.h5"


@pytest.fixture
def odd(tmp_path: Path, write_dataset: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / ODD, grids=np.zeros((2, 3, 3), "u1"))
    return ODD


def test_a_name_does_not_steer_the_terminal(vaefit_cli: Any, odd: str) -> None:
    outcomes = [
        vaefit_cli("weights", odd),
        vaefit_cli("weights", odd, "--verbose"),
        vaefit_cli("weights", odd, "--verify"),
        vaefit_cli("weights", odd, "--export", f"{odd}.json"),
        vaefit_cli("weights", f"{odd}:/none"),
        vaefit_cli("weights", odd, "--export", f"{odd}.json"),
    ]
    Path(f"{odd}.vaefit.json").write_text("torn")
    outcomes.append(vaefit_cli("weights", odd))
    for outcome in outcomes:
        assert SHOWN in outcome.out + outcome.err
        assert not {"\x1b", "\x07", "\u202e"} & set(outcome.out + outcome.err)
    assert SHOWN in outcomes[-1].err


def test_a_usage_error_does_not_steer_it_either(vaefit_cli: Any) -> None:
    outcome = vaefit_cli("weights", "--threads", "\x1b[31m")
    assert outcome.code == 2
    assert "\x1b" not in outcome.err
    assert "\\x1b[31m" in outcome.err


def test_a_table_with_such_names(vaefit_cli: Any, odd: str, write_dataset: Callable[..., Path], tmp_path: Path) -> None:
    write_dataset(tmp_path / "b.h5", grids=np.zeros((2, 3, 3), "u1"))
    shown = vaefit_cli("weights", odd, "b.h5", "--verbose").out
    assert "\\x1b[31mred" in shown
    assert "\x1b" not in shown


def test_json_keeps_the_name(vaefit_cli: Any, odd: str) -> None:
    outcome = vaefit_cli("weights", odd, "--json")
    assert "\x1b" not in outcome.out
    assert Path(json.loads(outcome.out)["cache_file"]).name == f"{odd}.vaefit.json"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("options", [["--json"], ["--csv"], []])
@pytest.mark.parametrize("data", ["grids.h5", "none.h5"])
def test_a_full_stdout_is_told_on_stderr(dataset: Path, options: list[str], data: str) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "vaefit.cli", "weights", data, *options],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
            cwd=dataset.parent,
            env={**os.environ, "NO_COLOR": "1"},
        )
    assert done.returncode == 3
    told = "none.h5: the file does not exist" if data == "none.h5" else "No space left on device"
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
