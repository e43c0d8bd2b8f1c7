"""How a process finds out that it is one of several."""

from __future__ import annotations

import pytest

from vaefit.vae.distributed.launch import Launch

TOLD = {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


def test_what_torchrun_says_is_read():
    more = {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RESTART_COUNT": "5"}
    assert Launch.from_environment({**TOLD, **more}) == Launch(3, 4, 1, 2, 5)


def test_without_the_local_numbers_each_rank_has_a_machine_of_its_own():
    assert Launch.from_environment(TOLD) == Launch(3, 4, 0, 1, 0)


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK"])
def test_what_is_no_number_is_told(name, vaefit_cli, monkeypatch):
    for key, value in {**TOLD, name: "x"}.items():
        monkeypatch.setenv(key, value)
    found = vaefit_cli("weights", "absent.h5", "--json")
    assert found.code == 2
    assert found.json["error"]["where"] == name


def test_a_process_by_itself_is_no_job():
    assert Launch.from_environment({}) is None
    assert Launch.from_environment({**TOLD, "WORLD_SIZE": "1", "RANK": "0"}) is None
    for name in TOLD:
        assert Launch.from_environment({key: value for key, value in TOLD.items() if key != name}) is None
