"""Tests of how a process detects that it is one rank of a job."""

from __future__ import annotations

import pytest

from vaefit.vae.distributed.launch import Launch

VARIABLES = {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


def test_the_variables_of_torchrun_are_read():
    more = {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RESTART_COUNT": "5"}
    assert Launch.from_environment({**VARIABLES, **more}) == Launch("localhost", False, 3, 4, 29500, 1, 2, 5)


def test_without_the_local_numbers_each_rank_has_a_machine_of_its_own():
    assert Launch.from_environment(VARIABLES) == Launch("localhost", False, 3, 4, 29500, 0, 1, 0)


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "MASTER_PORT", "LOCAL_RANK"])
def test_a_variable_that_is_no_number_is_an_error(name, vaefit_cli, monkeypatch):
    for key, value in {**VARIABLES, name: "x"}.items():
        monkeypatch.setenv(key, value)
    found = vaefit_cli("weights", "absent.h5", "--json")
    assert found.code == 2
    assert found.json["error"]["where"] == name


def test_rank_zero_keeps_the_store_unless_torchrun_does():
    first = {**VARIABLES, "RANK": "0"}
    assert Launch.from_environment(first).keeps_store
    assert not Launch.from_environment({**first, "TORCHELASTIC_USE_AGENT_STORE": "True"}).keeps_store


def test_a_rank_outside_the_job_is_an_error():
    with pytest.raises(ValueError, match="the rank lies outside the job"):
        Launch.from_environment({**VARIABLES, "RANK": "4"})


def test_a_process_by_itself_is_no_job():
    assert Launch.from_environment({}) is None
    assert Launch.from_environment({**VARIABLES, "WORLD_SIZE": "1", "RANK": "0"}) is None
    for name in VARIABLES:
        assert Launch.from_environment({key: value for key, value in VARIABLES.items() if key != name}) is None
