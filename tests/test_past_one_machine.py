"""`benchmarks/past_one_machine.py`: the arithmetic by hand, and a tiny run of everything that is measured."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
from ranks_as_threads import together

from vaefit.benchmarks import past_one_machine
from vaefit.benchmarks.machines import estimate, job, shards
from vaefit.benchmarks.machines.counting import measure_counting, worth_of_two, write_gzip
from vaefit.benchmarks.machines.estimate import Cluster, Dataset, estimate_count, estimate_training
from vaefit.benchmarks.machines.figures import (
    CountingFigures,
    Figures,
    JobFigures,
    Measured,
    ShardFigures,
    SpeedUp,
    TrainingFigures,
)
from vaefit.benchmarks.machines.job import job_figures, measure_speed_up, torchrun
from vaefit.benchmarks.machines.rank import Exchange, exchange
from vaefit.benchmarks.machines.shards import NAME, measure_shards
from vaefit.benchmarks.machines.training import measure_training
from vaefit.vae.errors import RunError


def exactly(value: float) -> Measured:
    return Measured(value, value, value)


FIGURES = Figures(
    CountingFigures(
        gzip=exactly(0.4),
        gzip_numpy=exactly(0.6),
        gzip_zlib=exactly(2.0),
        contiguous=exactly(0.1),
        contiguous_numpy=exactly(0.3),
        digest=exactly(0.5),
        gzip_size=0.05,
        two_threads=1.5,
    ),
    ShardFigures(
        entries=1500,
        listed=exactly(1.0),
        hit=exactly(2.0),
        missed=exactly(3.0),
        begun=exactly(1.0),
        owned=exactly(4.0),
        closed=exactly(20.0),
        closed_cpu=exactly(15.0),
        closed_alone=exactly(5.0),
        written=exactly(4.0),
        unsynced=exactly(1.0),
        described_bytes=500.0,
    ),
    JobFigures(
        join=exactly(6.0),
        shards=100,
        meet=exactly(0.5),
        add=exactly(1.0),
        gather=exactly(10.0),
        report_bytes=1000.0,
        gradients=exactly(5.0),
        objective=exactly(0.6),
    ),
    SpeedUp(10, 2, exactly(2.0), exactly(1.0), exactly(2.0)),
    TrainingFigures(batch=128, parameters=1_000_000, update=exactly(64.0), objective_bytes=1000),
)
GIB = 1 << 30


def test_a_count_by_hand():
    """4 machines, 64 GiB of cells each: four rounds, of 250 shards."""
    data = Dataset("made up", 1000, 256 * GIB, 16e9, True)
    found = estimate_count(FIGURES, data, Cluster(machines=4, threads=4, storage=1e9, network=1e9))
    assert (found.rounds, found.shards_a_round) == (4, 250)
    assert found.counter == "counter.c"  # a rank has 16 GiB in a round
    assert found.counting == pytest.approx(64 * GIB / 1e9 * 0.4 / 3)
    assert (found.read_bytes, found.reading, found.reading_twice, found.digest) == (4e9, 4.0, 8.0, 2.0)
    assert found.looking == pytest.approx(1000 * (1 + 3 + 1) / 1e3)
    assert found.closing == pytest.approx(1000 * (5 + 15) / 1e3)  # 1,500 files are there in the mean
    assert found.owning == pytest.approx(1.0)
    counts = 250 * 258 * 8
    assert found.wire_bytes == pytest.approx(4 * 2 * 3 * counts + 1000 * 1000 + 1000 * 500 * 3)
    assert found.talking == pytest.approx(4 * (2 * 0.0005 * 3 + 1.5 * counts / 1e9 + 0.025) + 1.5e6 / 1e9)
    assert found.lost_round == pytest.approx(found.counting / 4)
    assert found.again == pytest.approx(6 + 1 + 2)
    assert found.side_by_side == pytest.approx(found.counting + 1)
    assert found.serial == pytest.approx(25.0)
    assert found.first == "rank 0"
    assert found.turning_point(4) == pytest.approx(4 * (found.counting + 1) / 25)
    assert found.total == pytest.approx(6 + 25 + found.side_by_side + found.talking)


@pytest.mark.parametrize(("storage", "first"), [(1e9, "counting"), (1e7, "storage")])
def test_what_saturates_first(storage, first):
    data = Dataset.of_files(1e12, 10, FIGURES)
    assert data.cells == pytest.approx(20e12)
    found = estimate_count(FIGURES, data, Cluster(10, 2, storage, 1e9))
    assert found.counter == "counter.c"
    assert found.counting == pytest.approx(2000 * 0.4 / 1.5)
    assert found.first == first


def test_the_digest_is_first_where_nothing_is_inflated():
    data = Dataset.contiguous(1e12, 10)
    found = estimate_count(FIGURES, data, Cluster(10, 4, 10e9, 1e9))
    assert found.counting == pytest.approx(100 * 0.1 / 3)
    assert found.digest == pytest.approx(50.0)
    assert found.first == "digest"


def test_a_count_of_less_than_a_round_is_lost_whole():
    found = estimate_count(FIGURES, Dataset.of_cells(4e9, 8, FIGURES), Cluster(4, 1, 1e9, 1e9))
    assert found.rounds == 1
    assert found.lost_round == pytest.approx(found.counting)
    assert found.counting == pytest.approx(0.6)


def test_closing_grows_with_the_files_of_the_folder():
    assert estimate.closing(FIGURES.shard, 0) == 5
    assert estimate.closing(FIGURES.shard, 2000) == pytest.approx(5 + 15 * 2)


def test_training_by_hand():
    found = estimate_training(FIGURES, ranks=4, network=1e9)
    assert found.gradient_bytes == 4_000_000
    assert found.sent_bytes == pytest.approx(1.5 * 4_001_000)
    assert found.exchange == pytest.approx(1.5 * 4_001_000 / 1e9)
    assert found.latency == pytest.approx(0.003)
    assert found.rows == pytest.approx((found.exchange + found.latency) / 0.0005)


def test_the_tables_and_the_json(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(past_one_machine, "measure", lambda histogram, begins: FIGURES)
    file = tmp_path / "found.json"
    monkeypatch.setattr(sys, "argv", ["past_one_machine", "--json", str(file)])
    assert past_one_machine.main() == 0
    found = json.loads(file.read_text())
    assert found["figures"]["job"]["join"]["median"] == 6
    assert len(found["counts"]) == 12
    assert {one["cluster"]["machines"] for one in found["counts"]} == {64}
    assert len(found["training"]) == 2
    assert "gzip-4, counter.c" in capsys.readouterr().out


def test_a_tiny_run_of_counting(tmp_path):
    write_gzip(64, tmp_path / "gzip.h5")
    found = measure_counting(tmp_path / "gzip.h5", 64, 1, 0.0, past_one_machine.HISTOGRAM)
    assert found.gzip.median > 0
    assert found.digest.median > 0
    assert found.gzip_size > 0
    assert found.two_threads == worth_of_two(past_one_machine.HISTOGRAM) > 1


def test_a_tiny_run_of_shards_and_of_collectives(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "NOT_RACY_SECONDS", 0.0)
    found = measure_shards(tmp_path, shards=2, entries=5, rounds=1)
    assert all(value.median >= 0 for value in vars(found).values() if isinstance(value, Measured))
    assert found.described_bytes > 0
    what = Exchange("", 0.0, str(tmp_path / "few" / NAME.format(0)), 5, 10, 16, 2)
    exchanged = together(2, lambda ranks: exchange(ranks, what))
    assert all(len(one.gradients) == 2 for one in exchanged)
    figures = job_figures(exchanged[:1], 5)
    assert figures.report_bytes > 100
    assert figures.gather.median > 0


def test_a_tiny_run_of_training():
    found = measure_training(4, rounds=1, steps=3)
    assert found.gradient_bytes == 4 * 801_034
    assert found.objective_bytes == 8 * (2 + 100 + 32)
    assert found.update.median > 0


def test_a_tiny_run_of_the_speed_up(tmp_path, monkeypatch):
    """Two ranks are stood for by one process: starting them is tested elsewhere."""
    monkeypatch.setattr(job, "NOT_RACY_SECONDS", 0.0)
    monkeypatch.setattr(job, "torchrun", lambda ranks, module, *words: [sys.executable, "-m", module, *words])
    write_gzip(64, tmp_path / "gzip.h5")
    found = measure_speed_up(tmp_path / "gzip.h5", 2, tmp_path / "parts", 1)
    assert (found.cells, found.shards) == (2 * 64 * 256, 2)
    assert found.times.median == pytest.approx(found.one.median / found.two.median)


def test_a_process_that_fails_is_named():
    assert "--standalone" in torchrun(2, "vaefit.cli", "weights")
    with pytest.raises(RunError, match="no luck"):
        job.output_of([sys.executable, "-c", "raise SystemExit('no luck')"])


def test_where_the_counts_differ_nothing_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "NOT_RACY_SECONDS", 0.0)
    answers = iter([{"seconds": 1, "counts": [2]}, {"seconds": 1, "counts": [3]}])
    monkeypatch.setattr(job, "output_of", lambda command: json.dumps(next(answers)))
    write_gzip(64, tmp_path / "gzip.h5")
    with pytest.raises(RunError, match="count differently"):
        measure_speed_up(tmp_path / "gzip.h5", 1, tmp_path / "parts", 1)


def test_half_the_machines_take_twice_as_long():
    data = Dataset.of_files(1e12, 100, FIGURES)
    many = Cluster(8, 4, 1e9, 1e9)
    one, two = (estimate_count(FIGURES, data, replace(many, machines=n)) for n in (8, 4))
    assert two.counting == pytest.approx(2 * one.counting)
    assert two.serial == one.serial
