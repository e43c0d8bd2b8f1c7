"""Tests that use every option which a `--help` lists; `overfit` and `train` have files of their own."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import typer

from vaefit.cli.app import app

# each is run in a folder with grids.h5, grids.npz, arc/ and a finished run
LINES = {
    "weights": [
        "grids.h5 --rebuild --json",
        "grids.h5 --verify --quiet",
        "grids.h5 --all-schemes",
        "grids.h5 --scheme balanced --smooth 2 --classes 12 --ignore-index 3 --cache-dir cache",
        "grids.h5 --scheme effective --effective-b 0.9 --export w.json --overwrite",
        "grids.h5 --rebuild --threads 2 --csv --verbose --rank-timeout 5",
    ],
    "data synth": [
        "s.h5 --grids 20 --height 9 --width 10 --classes 4 --seed 1 --overwrite --json",
        "q.h5 --grids 5 -q",
    ],
    "data import arc": ["arc a.h5 --max-side 8 --pad-class 1 --overwrite --json", "arc b.h5 --quiet"],
    "data import npz": ["grids.npz n.h5 --key grids --classes 10 --overwrite --json", "grids.npz m.h5 --quiet"],
    "data relabel": [
        "grids.h5 r.h5 --map 1=2,3=2 --renumber --ignore-index 0 --overwrite --json",
        "grids.h5 u.h5 --renumber --quiet",
    ],
    "sweep": [
        "grids.h5 --batch-size 4 --iterations 1 --vary lr=0.1,0.2 --seeds 1 --out sweep --overwrite --json",
        "grids.h5 --batch-size 4 --iterations 1 --seeds 1 --quiet --verbose",
    ],
    "evaluate": [
        "run --split all --checkpoint best --batch-size 50 --cache-dir cache --device cpu --json",
        "run grids.h5 --backend eager --threads 1 --out evaluation --overwrite --quiet --verbose",
    ],
    "sample": [
        "run --count 3 --seed 1 --temperature 0.5 --out drawn.png --device cpu --json",
        "run --quiet --verbose",
    ],
    "show": ["run", "run --json", "run --quiet"],
    "compare": ["run run", "run run --json", "run run -q"],
    "doctor": ["--device cpu --backend eager --json", "--quiet"],
    "bench kernels": [
        "--quick --shape 2,3,4,4 --dtype float32 --backend eager --device cpu --threads 1 --json",
        "--quick --shape 2,3,4,4 --dtype float16 --require --chart share.png -q",
        "--compile-only --json",
    ],
    "bench histogram": [
        "--layout contiguous --grids 2048 --quick --json",
        "--layout contiguous --grids 2048 --quick --require --quiet",
    ],
    "bench step": [
        "grids.h5 --no-peers --rounds 1 --steps 3 --device cpu --require 0 --json",
        "grids.h5 --no-peers --rounds 1 -q",
    ],
    "bench loader": [
        "grids.h5 --quick --batch-size 32 --device cpu --json",
        "--grids 2048 --quick --quiet",
    ],
}


@dataclass(frozen=True)
class _Compiled:
    kernel: str = "focal"
    target: str = "sm_90"
    registers: int = 100
    spills: int = 0
    stack: int = 0
    wide_loads: bool = True
    shared: int = 0
    seconds: float = 0.0
    problem: None = None


@pytest.fixture(scope="module")
def place(tmp_path_factory, grids, write_dataset, vaefit_cli):
    folder = tmp_path_factory.mktemp("options")
    write_dataset(folder / "grids.h5", grids=grids)
    np.savez(folder / "grids.npz", grids=grids)
    (folder / "arc").mkdir()
    pair = {"input": grids[0].tolist(), "output": grids[1].tolist()}
    (folder / "arc" / "task.json").write_text(json.dumps({"train": [pair], "test": [pair]}))
    vaefit_cli("overfit", folder / "grids.h5", "--batch-size", "4", "--iterations", "1", "--out", folder / "run")
    return folder


def _slow_benchmarks(command):
    """Return the marks of a command: the benchmarks take seconds."""
    return [pytest.mark.slow] if command in ("bench histogram", "bench loader", "bench step") else []


@pytest.mark.parametrize(
    ("command", "line"),
    [pytest.param(c, line, marks=_slow_benchmarks(c)) for c, lines in LINES.items() for line in lines],
)
def test_the_line_runs(vaefit_cli, place, monkeypatch, command, line):
    monkeypatch.chdir(place)
    monkeypatch.setattr("vaefit.benchmarks.kernels.clock.CPU_BYTES", 1 << 20)
    # compiling them all takes minutes
    monkeypatch.setattr("vaefit.benchmarks.kernels.cross_compile.compile_kernels", lambda: [_Compiled()])
    outcome = vaefit_cli(*command.split(), *line.split())
    # whether a goal of speed is reached is not for this test, and none is set for so small a shape of logits
    assert outcome.code == (1 if "--require --chart" in line else 0) or "--require --quiet" in line, outcome.err
    if "--json" in line:
        assert outcome.json


def _help(vaefit_cli, *command):
    outcome = vaefit_cli(*command, "--help")
    assert outcome.code == 0
    listed = re.findall(r"^  (-.+?)(?:  |$)", outcome.out, re.MULTILINE)
    options = {option for entry in listed for option in re.findall(r"--[a-z][a-z-]+", entry)}
    commands = re.search(r"^Commands:\n((?:  .*\n)+)", outcome.out, re.MULTILINE)
    return options, re.findall(r"^  (\w+)", commands[1], re.MULTILINE) if commands else []


def _commands(vaefit_cli, *above):
    """Return every command that is no group, found through the helps."""
    _, below = _help(vaefit_cli, *above)
    return [c for name in below for c in _commands(vaefit_cli, *above, name)] if below else [" ".join(above)]


def test_every_command_and_option_is_above(vaefit_cli):
    commands = set(_commands(vaefit_cli)) - {"overfit", "train"}
    assert commands == LINES.keys()
    for command in commands:
        options, _ = _help(vaefit_cli, *command.split())
        used = {word for line in LINES[command] for word in line.split()}
        short = {"-q": "--quiet"}
        elsewhere = {"--build"} if command == "doctor" else set()  # test_doctor.py: it changes `--backend auto`
        assert sorted(options - used - {short.get(word) for word in used} - {"--help"} - elsewhere) == [], command


def test_the_context_holds_paths():
    """Settings are made from the context, which holds the str that was typed unless the option converts it."""
    group = typer.main.get_command(app)
    options = ["weights_file", "cache_dir", "out"]
    for command, own in (("overfit", "from"), ("train", "resume")):
        words = [word for name in (*options, own) for word in ("--" + name.replace("_", "-"), "file")]
        parsed = group.commands[command].make_context(command, words).params
        name = "from_run" if own == "from" else own
        assert [parsed[key] for key in (*options, name)] == [Path("file")] * 4


def test_a_group_of_options_stands_where_the_command_declares_it():
    names = [p.name for p in typer.main.get_command(app).commands["overfit"].params]
    assert names[names.index("weights") :][:2] == ["weights", "scheme"]
    assert names[names.index("beta") :][:3] == ["beta", "beta_ramp", "free_bits"]
