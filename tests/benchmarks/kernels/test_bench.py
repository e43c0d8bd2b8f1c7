"""`vaefit-cli bench kernels`: parity before time, peers that compute what they say, and what is printed."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace

import pytest
import torch
from PIL import Image

from vaefit.benchmarks.kernels import clock, inputs, peers
from vaefit.benchmarks.kernels.clock import CudaClock
from vaefit.benchmarks.kernels.goals import GOALS, judge_goals
from vaefit.benchmarks.kernels.inputs import HALF_SCALE, OPS, gradient_of, make_inputs
from vaefit.benchmarks.kernels.plan import QUICK_SHAPES
from vaefit.benchmarks.kernels.race import Timing
from vaefit.benchmarks.kernels.row import Place, Row

CPU = torch.device("cpu")
SMALL = ("--shape", "3,4,5,7", "--quick")


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """Samples and copies too short to be trusted, and long enough to be taken."""
    monkeypatch.setattr(clock, "CPU_BYTES", 1 << 20)
    monkeypatch.setattr(clock, "LEAST_SECONDS", 1e-3)


@pytest.fixture
def bench(vaefit_cli):
    """Run the command on one small shape."""
    return lambda *arguments: vaefit_cli("bench", "kernels", *SMALL, *arguments)


def test_a_row_for_each_dtype_and_operation(bench):
    done = bench("--json")
    assert done.code == 0, done.err
    rows = done.json
    assert [(row["dtype"], row["op"]) for row in rows] == [(d, op) for d in ("float32", "bfloat16") for op in OPS]
    for row in rows:
        assert row["shape"] == [3, 4, 5, 7]
        assert row["backend"] == "eager"
        assert (row["device"], row["threads"], row["clock"]) == ("cpu", 1, "CPU time")
        assert row["parity"] is True
        assert 0 <= row["parity_error"] < 0.01
        assert 0 < row["low_us"] <= row["median_us"] <= row["high_us"]
        assert row["gb_s"] == pytest.approx(row["bytes"] / row["median_us"] / 1e3)
        assert row["bandwidth_share"] == pytest.approx(row["gb_s"] / row["copy_gb_s"])
        assert row["peak_bytes"] > 0
        assert row["host_us"] is None
        wanted = ["torchmetrics"] if row["op"] == "counts" else ["naive", "cross_entropy"]
        assert list(row["ratio"]) == list(row["peers"]) == wanted
        for name, peer in row["peers"].items():
            assert row["ratio"][name] == pytest.approx(peer["median_us"] / row["median_us"])


def test_the_tables(bench):
    done = bench("--dtype", "float32")
    assert done.code == 0
    for word in ("3,4,5,7", *OPS, "naive", "torchmetrics", "GB/s", "CPU time, median (quartiles)", "eager ("):
        assert word in done.out
    assert "goals" not in done.out  # none is set for this shape
    assert "inductor is left out with --quick" in done.err
    assert "liger is left out" in done.err


def test_float16_is_scaled_as_a_gradient_scaler_does(bench):
    assert make_inputs((2, 3, 4, 4), torch.float16, CPU).upstream == HALF_SCALE
    assert all(row["parity"] for row in bench("--json", "--dtype", "float16").json)


def test_more_threads_are_measured_by_wall_time(bench):
    before = torch.get_num_threads()
    done = bench("--json", "--threads", "2", "--dtype", "float32")
    assert {row["clock"] for row in done.json} == {"wall time"}
    assert "wall times" in done.err
    assert torch.get_num_threads() == before


def _one_percent_more(function):
    def wrong(*arguments, **options):
        return 1.01 * function(*arguments, **options)

    return wrong


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_red_parity_prints_no_time(bench, monkeypatch, dtype):
    monkeypatch.setattr(inputs, "focal_loss", _one_percent_more(inputs.focal_loss))
    done = bench("--json", "--dtype", dtype)
    assert done.code == 1
    for row in done.json:
        red = row["op"] == "loss+gradient"
        assert row["parity"] is not red
        for key in ("median_us", "low_us", "high_us", "gb_s", "bandwidth_share", "peak_bytes"):
            assert (row[key] is None) is red
        assert all((ratio is None) is red for ratio in row["ratio"].values())
        assert row["parity_error"] == pytest.approx(0.01, rel=0.5) if red else row["parity_error"] < 0.01
    assert "3,4,5,7 " + dtype + " loss+gradient: parity is red, so nothing is timed: loss off by 1.0e-02" in done.err
    shown = bench("--dtype", dtype)
    assert shown.code == 1
    assert "parity is red" in shown.out


def test_a_wrong_gradient_alone_is_red(bench, monkeypatch):
    monkeypatch.setattr(inputs, "gradient_of", _one_percent_more(gradient_of))
    done = bench("--json", "--dtype", "float32")
    assert done.code == 1
    assert [row["parity"] for row in done.json] == [False, False, True, True]
    # peers have their own
    assert all(ratio for row in done.json if row["parity"] for ratio in row["ratio"].values())


def test_one_cell_counted_elsewhere_is_red(bench, monkeypatch):
    honest = inputs.confusion_counts

    def wrong(*arguments, **options):
        counts = honest(*arguments, **options).clone()
        counts[0, 0] -= 1
        counts[0, 1] += 1
        return counts

    monkeypatch.setattr(inputs, "confusion_counts", wrong)
    done = bench("--json", "--dtype", "float32")
    assert done.code == 1
    assert [row["parity"] for row in done.json] == [True, True, True, False]


def test_a_wrong_peer_is_refused(bench, monkeypatch):
    monkeypatch.setattr(peers, "GAMMA", 1.9)
    done = bench("--json", "--dtype", "float32")
    assert done.code == 0  # ours is right
    for row in done.json:
        if row["op"] != "counts":
            assert row["ratio"] == {"naive": None, "cross_entropy": None}
            assert row["peers"]["naive"] is None
            assert row["median_us"] > 0
    assert "float32 loss+gradient: naive is left out, its answer is wrong: loss off by" in done.err
    assert "none" in bench("--dtype", "float32").out


def test_a_peer_that_fails_is_refused(bench, monkeypatch):
    def broken(*_):
        raise TypeError("another signature\nand more")

    monkeypatch.setattr(peers, "_torchmetrics_counts", broken)
    done = bench("--json", "--dtype", "float32")
    assert done.code == 0
    assert done.json[-1]["ratio"] == {"torchmetrics": None}
    assert "counts: torchmetrics is left out, it failed: TypeError: another signature\n" in done.err


def test_without_torchmetrics_only_losses_are_compared(bench, monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    done = bench("--json", "--dtype", "float32")
    assert done.code == 0
    assert [list(row["ratio"]) for row in done.json] == [[], ["naive", "cross_entropy"], [], []]
    assert "torchmetrics is not installed, so nobody counts beside us: pip install 'vaefit[bench]'" in done.err


@dataclass
class _Event:
    """Stands for an event; the stream's time is what the fake device has done by then."""

    device: list[float]
    enable_timing: bool = True
    at: float = 0.0

    def record(self):
        self.at = self.device[0]

    def elapsed_time(self, end):
        return 1e3 * (end.at - self.at)


@pytest.fixture
def gpu_clock(monkeypatch):
    """The clock of a GPU over a device that only adds up what it was given, and how often it slept."""
    device, slept = [0.0], []
    monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: _Event(device, enable_timing))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)

    def sleep(cycles):
        slept.append(cycles)
        device[0] += 100.0  # must not be in the result

    monkeypatch.setattr(torch.cuda, "_sleep", sleep)
    return CudaClock(), device, slept


def test_the_clock_of_a_gpu_takes_the_time_between_events(gpu_clock):
    clock, device, slept = gpu_clock

    def call(seconds):
        device[0] += seconds

    assert clock.sample(call, [1.0, 2.0, 9.0]) == pytest.approx(2.0)  # the median call
    assert len(slept) == 3
    assert all(isinstance(cycles, int) for cycles in slept)
    assert 0 <= clock.host(call, [1.0, 2.0]) < 1.0
    assert clock.calls(1.0, sets=300) == 32
    assert clock.calls(1.0, sets=1) == 1


def test_a_bench_by_the_clock_of_a_gpu(bench, monkeypatch, gpu_clock):
    clock, device, _ = gpu_clock
    monkeypatch.setattr("vaefit.benchmarks.kernels.bench.clock_for", lambda *_: clock)
    monkeypatch.setattr("vaefit.benchmarks.kernels.case._cache_bytes", lambda _: 4000)
    honest = inputs.focal_loss

    def slow(logits, *arguments, **options):
        device[0] += 1e-3
        return honest(logits, *arguments, **options)

    monkeypatch.setattr(inputs, "focal_loss", slow)
    # what takes a device no time at all has no speed
    monkeypatch.setattr("vaefit.benchmarks.kernels.bench.OPS", ("loss+gradient",))
    monkeypatch.setattr("vaefit.benchmarks.kernels.bench.copy_bandwidth", lambda *_: 1e9)
    done = bench("--json", "--dtype", "float32")
    assert done.code == 0, done.err
    (row,) = done.json
    assert row["median_us"] == pytest.approx(1000)
    assert row["clock"] == "GPU time"
    assert row["host_us"] > 0
    assert all(peer["host_us"] > 0 for peer in row["peers"].values())
    assert "host us" in bench("--dtype", "float32").out


def _row(shape, op, backend="eager", dtype="float32", device="cpu", threads=1, peak=1.0, ratio=1.0):
    timing = Timing(10.0, 9.0, 11.0, None, int(peak * 1000))
    peer = None if ratio is None else replace(timing, median_us=10.0 * ratio)
    name = "torchmetrics" if op == "counts" else "naive"
    place = Place(device, "a machine", threads, "CPU time", 1e10)
    return Row(shape, dtype, op, backend, True, 0.0, 5000, 1000, timing, {name: peer}, place)


def test_goals_are_for_one_cpu_thread_and_float32():
    shape = QUICK_SHAPES[0]
    for other in ({"dtype": "bfloat16"}, {"device": "cuda"}, {"threads": 2}, {"backend": "reference"}):
        assert judge_goals([_row(shape, "counts", **other)]) == []
    assert judge_goals([_row((1, 2, 3, 4), "counts")]) == []
    for backend in ("eager", "compiled"):
        rows = [_row(shape, op, backend) for shape in QUICK_SHAPES for op in OPS]
        assert {judgement.goal for judgement in judge_goals(rows)} == {g for g in GOALS if g.backend == backend}


@pytest.mark.parametrize(
    ("op", "backend", "measured", "holds"),
    [
        ("counts", "eager", {"ratio": 4.01}, [True]),
        ("counts", "eager", {"ratio": 3.99}, [False]),
        ("counts", "compiled", {"ratio": None}, [False]),
        ("loss+gradient", "eager", {"ratio": 2.1}, [True]),
        ("loss+gradient", "compiled", {"ratio": 2.9}, [False]),
        ("loss+gradient+counts", "eager", {"ratio": 3.0, "peak": 1.4}, [True, True]),
        ("loss+gradient+counts", "compiled", {"ratio": 3.0, "peak": 1.4}, [False, False]),
        ("loss+gradient+counts", "compiled", {"ratio": 5.1, "peak": 1.1}, [True, True]),
        ("loss+counts", "eager", {}, []),
    ],
)
def test_a_goal_is_held_against_its_row(op, backend, measured, holds):
    found = judge_goals([_row((32, 10, 16, 16), op, backend, **measured)])
    assert [judgement.holds for judgement in found] == holds


def test_goals_end_the_output_and_only_require_makes_them_count(vaefit_cli, monkeypatch):
    monkeypatch.setattr(peers, "GAMMA", 1.9)  # no peer to hold against: what needs one is not reached
    line = ("bench", "kernels", "--quick", "--shape", "32,10,16,16", "--dtype", "float32")
    done = vaefit_cli(*line)
    assert done.code == 0
    *_, goals = done.out.split("goals (one CPU thread, float32)")
    assert "x naive at least 2.8" in goals
    assert "extra at most 1.5" in goals
    assert "MISSED" in goals
    assert vaefit_cli(*line, "--require", "--json").code == 1


def test_require_where_no_goal_is_set_says_so(bench):
    done = bench("--require", "--json", "--dtype", "float32")
    assert done.code == 1
    assert "no goal is set for what ran" in done.err


def test_a_goal_against_a_peer_that_is_not_there_is_none():
    row = _row((32, 10, 16, 16), "loss+gradient+counts", "eager", ratio=3.0, peak=1.4)
    assert [judgement.goal.peer for judgement in judge_goals([replace(row, peers={})])] == [None]


@pytest.mark.slow
def test_the_chart_is_a_picture(bench, tmp_path):
    file = tmp_path / "share.png"
    done = bench("--shape", "2,3,4,4", "--chart", str(file))
    assert done.code == 0
    assert f"chart in {file}" in done.err
    with Image.open(file) as picture:
        assert picture.format == "PNG"
        assert picture.size == (1200, 800)
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


def test_a_chart_of_nothing_but_red_rows(bench, tmp_path, monkeypatch):
    for name in ("focal_loss", "confusion_counts"):
        monkeypatch.setattr(inputs, name, lambda logits, *_, **__: logits.sum() * 0)
    monkeypatch.setattr(inputs, "focal_loss_with_counts", lambda logits, *_, **__: (logits.sum() * 0,) * 2)
    file = tmp_path / "share.png"
    done = bench("--chart", str(file))
    # an answer of the wrong shape is a mistake of ours, not a number that is off
    assert done.code == 3
    assert "the counts has shape ()" in done.err


@dataclass(frozen=True)
class _Compiled:
    kernel: str = "focal, C 10, fp32"
    target: str = "sm_90"
    registers: int | None = 143
    spills: int = 0
    stack: int = 0
    wide_loads: bool = True
    shared: int = 1024
    seconds: float = 0.5
    problem: str | None = None


@pytest.mark.parametrize("problem", [None, "12 spills"])
def test_compile_only(vaefit_cli, monkeypatch, problem):
    pytest.importorskip("triton")
    listed = [_Compiled(), _Compiled(target="gfx942", registers=None, problem=problem)]
    monkeypatch.setattr("vaefit.benchmarks.kernels.cross_compile.compile_all", lambda: listed)
    done = vaefit_cli("bench", "kernels", "--compile-only")
    assert done.code == (0 if problem is None else 1)
    for word in ("focal, C 10, fp32", "sm_90", "gfx942", "143", "unknown", problem or "all pass"):
        assert word in done.out
    as_json = vaefit_cli("bench", "kernels", "--compile-only", "--json")
    assert as_json.code == done.code
    assert [(row["target"], row["problem"]) for row in as_json.json] == [("sm_90", None), ("gfx942", problem)]
    assert as_json.json[0].keys() == _Compiled.__dataclass_fields__.keys()


def test_nothing_is_compiled_where_kernels_are_interpreted(vaefit_cli, monkeypatch):
    monkeypatch.setitem(os.environ, "TRITON_INTERPRET", "1")
    done = vaefit_cli("bench", "kernels", "--compile-only")
    assert done.code == 3
    assert "TRITON_INTERPRET=1 is set, so nothing is compiled" in done.err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--shape", "3,4"), "4 whole numbers"),
        (("--shape", "3,4,x,5"), "4 whole numbers"),
        (("--shape", "3,1,4,4"), "from 2 to 256"),
        (("--shape", "0,3,4,4"), "from 1 to"),
        (("--dtype", "float64"), "float32, bfloat16, float16"),
        (("--shape", "2,3,4,4", "--shape", "2,3,4,4"), "given twice"),
        (("--threads", "0"), "--threads"),
        (("--backend", "fast"), "auto, triton, compiled, eager, reference"),
        (("--device", "tpu"), "auto, cpu, cuda"),
    ],
)
def test_a_wrong_command_line(vaefit_cli, arguments, word):
    done = vaefit_cli("bench", "kernels", *arguments, "--json")
    assert done.code == 2
    error = json.loads(done.out)
    assert error["exit"] == 2
    assert word in str(error["error"])


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--backend", "triton", "--device", "cpu"), "backend 'triton' cannot run"),
        (("--chart", "/no/such/folder/share.png"), "the chart cannot be written there"),
    ],
)
def test_what_cannot_run(bench, arguments, word):
    done = bench(*arguments)
    assert done.code == 3
    assert word in done.err
    assert done.out == ""


def test_a_shape_that_does_not_fit(bench, monkeypatch):
    def too_large(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("vaefit.benchmarks.kernels.case.make_sets", too_large)
    done = bench()
    assert done.code == 3
    assert "--shape: this shape does not fit into memory" in done.err
