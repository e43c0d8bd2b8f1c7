"""`vaefit-cli bench step` runs, and prints no time where the loops do not agree."""

from __future__ import annotations

import pytest

from vaefit.benchmarks.step import bench, plain_loop
from vaefit.benchmarks.step.whole_check import whole_checks
from vaefit.cli.output.bench_tables import print_step
from vaefit.cli.output.terminal import Terminal

pytestmark = pytest.mark.slow


@pytest.fixture
def bench_step(vaefit_cli, dataset):
    """Run the command in this process, tiny."""
    words = ("bench", "step", dataset, "--no-peers", "--rounds", "1", "--steps", "4")
    return lambda *arguments: vaefit_cli(*words, *arguments)


def test_it_times_both_loops(bench_step):
    done = bench_step("--json")
    found = done.json
    assert done.code == 0
    assert found["step"].keys() >= {"plain", "vaefit, adam", "vaefit"}
    for row in found["step"].values():
        assert 0 < row["low_ms"] <= row["median_ms"] <= row["high_ms"]
    assert found["step"]["plain"]["plain_over_this"] == 1
    assert found["batch"] == [32, 8, 8]
    assert found["check"] is None


def test_a_ratio_that_is_missed(bench_step):
    done = bench_step("--require", "1000")
    assert done.code == 1
    assert "plain" in done.out


def test_red_parity_prints_no_time(bench_step, monkeypatch):
    honest = plain_loop.naive_focal_loss
    monkeypatch.setattr(plain_loop, "naive_focal_loss", lambda *arguments: 1.01 * honest(*arguments))
    done = bench_step("--json")
    assert done.code == 1
    assert done.json["parity"] is False
    assert done.json["step"] == {}
    assert "parity is red" in done.err


@pytest.mark.parametrize("option", ["--rounds", "--steps"])
def test_nothing_to_measure_is_a_wrong_command_line(vaefit_cli, dataset, option):
    assert vaefit_cli("bench", "step", dataset, option, "0").code == 2


def test_lightning_is_a_loop_and_whole_checks_run_in_processes_of_their_own(dataset, monkeypatch, capsys):
    pytest.importorskip("lightning")
    monkeypatch.setattr(bench, "whole_checks", lambda data, rounds: whole_checks(data, rounds // 3))
    found = bench.bench_step(dataset, bench.StepSettings(rounds=1, steps=4))
    assert "lightning" in found.loops
    assert found.checks.keys() == {"vaefit", "vaefit, adam", "lightning"}
    assert found.checks["lightning"].updates == found.checks["vaefit, adam"].updates
    assert all(cost.cpu_seconds > 0 for cost in found.checks.values())
    print_step(Terminal(as_json=False, quiet=False), found)
    assert f"{found.checks['lightning'].cpu_seconds:.2f}" in capsys.readouterr().out


def test_on_a_gpu_ours_is_timed_step_by_step_compiled_and_as_a_graph(dataset, monkeypatch):
    """The rows of a GPU, on the CPU: what is captured there is called here."""
    from vaefit.benchmarks.step import loops

    problem = loops.Problem.from_data(dataset)
    # 60 updates and the last measurement
    monkeypatch.setattr(loops, "overfit", lambda *_, on_step, **__: [on_step(step) for step in range(61)])
    found = loops.device_loops()
    assert [name for name in found if name.startswith("vaefit, adam")] == [
        "vaefit, adam, eager",
        "vaefit, adam, compiled",
        "vaefit, adam, graph",
    ]
    seconds = {name: steps(problem, 40) for name, steps in found.items()}
    assert all(value > 0 for values in seconds.values() for value in values)
    assert len(seconds["vaefit, graph"]) == 4
