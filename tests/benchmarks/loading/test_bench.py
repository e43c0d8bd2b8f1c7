"""`vaefit-cli bench loader` runs, and prints no time where a loader gives other grids than h5py."""

from __future__ import annotations

import numpy as np
import pytest

from vaefit.benchmarks.loading import bench
from vaefit.benchmarks.loading.worker import Load, load_here

pytestmark = pytest.mark.slow

WAYS = ["memory", "stream, 1 worker", "stream, 2 workers"]


def test_each_way_to_load_a_dataset(vaefit_cli, dataset):
    done = vaefit_cli("bench", "loader", dataset, "--quick", "--batch-size", "32", "--json")
    assert done.code == 0
    found = done.json
    assert found["batch"] == [32, 8, 8]
    assert found["grids"] == 200
    assert found["step"]["grids_a_second"] > 0
    assert [row["way"] for row in found["rows"]] == WAYS
    for row in found["rows"]:
        assert row["parity"]
        assert 0 < row["low"] <= row["speed"] <= row["high"]
        assert row["over_step"] == pytest.approx(row["speed"] / found["step"]["grids_a_second"])
        assert row["first_s"] > 0
        assert row["cpu_us"] > 0


def test_without_data_in_every_layout(vaefit_cli):
    done = vaefit_cli("bench", "loader", "--quick", "--grids", "1024", "--batch-size", "8")
    assert done.code == 0
    assert "grids/s: batch 8 x 16 x 16" in done.out
    assert done.out.count("stream, 2 workers") == len(bench.LAYOUTS)


def test_shards_are_one_dataset(vaefit_cli, tmp_path, grids, write_dataset):
    for number, part in enumerate(np.split(grids, 2)):
        write_dataset(tmp_path / f"part-{number}.h5", grids=part)
    done = vaefit_cli("bench", "loader", tmp_path / "part-*.h5", "--quick", "--batch-size", "8", "--json")
    assert done.json["grids"] == 200


def test_red_parity_prints_no_time(vaefit_cli, dataset, monkeypatch):
    monkeypatch.setattr(bench, "digest", lambda _: "another")
    done = vaefit_cli("bench", "loader", dataset, "--quick", "--batch-size", "8", "--json")
    assert done.code == 1
    assert not done.json["parity"]
    assert all(row["speed"] is None and not row["parity"] for row in done.json["rows"])
    assert "parity is red" in vaefit_cli("bench", "loader", dataset, "--quick", "--batch-size", "8").out


def test_a_process_that_fails_is_named(vaefit_cli, dataset, monkeypatch):
    monkeypatch.setattr(bench, "count_shards", lambda data: Counts())
    done = vaefit_cli("bench", "loader", dataset, "--quick", "--batch-size", "8")
    assert done.code == 3
    assert "not the one that was split" in done.err


class Counts:
    name, grids, classes = "more than there are", 300, 10


@pytest.mark.parametrize("options", [("--grids", "63"), ("--batch-size", "0"), ("--batch-size", "191")])
def test_a_wrong_command_line(vaefit_cli, dataset, options):
    assert vaefit_cli("bench", "loader", dataset, "--quick", *options).code == 2


def test_epochs_follow_one_another(dataset):
    found = load_here(Load(str(dataset), 200, 10, 64, "stream", 1, seconds=0.05))
    assert found.speed * 0.05 > 200
    assert found.how.startswith("streamed")
