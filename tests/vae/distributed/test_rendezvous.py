"""Tests of the rendezvous of ranks that are threads: whom it waits for, and one error where they differ."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from vaefit.vae.distributed import rendezvous
from vaefit.vae.distributed.launch import Launch
from vaefit.vae.distributed.rendezvous import Failure, JobError, Rendezvous

CALL = {"command": "vaefit-cli train", "DATA": "grids.h5", "--seed": "0"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("_NOTICE_AFTER", 0.3), ("PATIENCE", 0.5), ("_PAUSE", 0.02), ("_ANSWER", 0.3)):
        monkeypatch.setattr(rendezvous, name, seconds)


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def listening() -> Iterator[int]:
    """A port where something listens that never answers."""
    with socket.socket() as server:
        server.bind(("localhost", 0))
        server.listen()
        yield int(server.getsockname()[1])


def launch(rank: int, size: int, port: int) -> Launch:
    return Launch("localhost", rank == 0, rank, size, port, rank, size, 0)


def meet(point: Rendezvous, rank: int, call: dict[str, str]) -> str:
    """Return the error of a rank as `joined` reports it to all; empty where the ranks have met."""
    try:
        point.meet(call)
    except JobError as error:
        failure = point.first_failure(Failure(rank, error))
        point.outlast()
        assert failure is not None
        return str(failure.as_exception())
    return ""


def together(calls: dict[int, dict[str, str]], size: int, port: int, timeout: float = 20.0) -> dict[int, str]:
    """Return the error of each of these ranks of a job."""
    points = {rank: Rendezvous(launch(rank, size, port), timeout) for rank in calls}
    with ThreadPoolExecutor(len(calls)) as pool:
        found = {rank: pool.submit(meet, points[rank], rank, call) for rank, call in calls.items()}
        return {rank: error.result() for rank, error in found.items()}


def test_ranks_that_are_alike_meet(port: int) -> None:
    assert together(dict.fromkeys(range(3), CALL), 3, port) == dict.fromkeys(range(3), "")


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"--seed": "3"}, ("--seed", "0 on rank 0, 3 on rank 2")),
        (
            {"--seed": "3", "DATA": "b.h5"},
            ("DATA, --seed", "grids.h5 on rank 0, b.h5 on rank 2; 0 on rank 0, 3 on rank 2"),
        ),
        (
            {"command": "vaefit-cli weights", "--seed": "3", "--csv": "False"},
            ("command", "vaefit-cli train on rank 0, vaefit-cli weights on rank 2"),
        ),
    ],
)
def test_ranks_that_differ_have_one_error_that_names_both_values(
    other: dict[str, str], expected: tuple[str, str], port: int
) -> None:
    found = together({0: CALL, 1: CALL, 2: {**CALL, **other}}, 3, port)
    where, got = expected
    do = "Start every rank with the same command line and the same versions."
    assert set(found.values()) == {f"{where}: the ranks of the job were started differently (got {got}). {do}"}


def test_a_rank_that_is_missing_is_named_and_then_the_error_of_all(port: int, said: Callable[[], str]) -> None:
    start = time.monotonic()
    found = together({0: CALL, 2: CALL}, 4, port, timeout=1.0)
    assert time.monotonic() - start < 5
    at = f"MASTER_ADDR localhost, MASTER_PORT {port}"
    do = "Start every rank with the same address and port, or raise --rank-timeout."
    assert set(found.values()) == {
        f"{at}: the job is not complete (got nothing from ranks 1, 3 of 4 in 1 s). {do}",
    }
    for rank in (0, 2):
        assert f"rank {rank} waits for ranks 1, 3 of 4 at {at}, for up to 1 s (--rank-timeout)" in said()


@pytest.mark.parametrize("kind", ["port", "listening"])
def test_a_wrong_port_is_named(kind: str, request: pytest.FixtureRequest, said: Callable[[], str]) -> None:
    port = request.getfixturevalue(kind)
    reason = "Connection refused" if kind == "port" else "what listens there is no store of a job"
    (error,) = together({1: CALL}, 2, port, timeout=1.0).values()
    assert f"MASTER_PORT {port}: the job is not complete (got nothing from rank 0 of 2 in 1 s: {reason})" in error
    assert f"rank 1 waits for rank 0 of 2 at MASTER_ADDR localhost, MASTER_PORT {port} ({reason})" in said()


def test_a_port_that_is_in_use_is_an_error_at_once(listening: int) -> None:
    (error,) = together({0: CALL}, 2, listening).values()
    assert f"MASTER_PORT {listening}: rank 0 cannot listen on its port" in error


def test_a_second_process_of_one_rank_leaves_the_job_alone(port: int) -> None:
    first = Rendezvous(launch(0, 2, port), 20.0)
    stores: list[Any] = []
    with ThreadPoolExecutor(2) as pool:
        kept = pool.submit(lambda: stores.append(first.meet(CALL)))
        assert meet(Rendezvous(launch(1, 2, port), 20.0), 1, CALL) == ""
        kept.result()
    error = meet(Rendezvous(launch(1, 2, port), 20.0), 1, CALL)
    assert "RANK: two processes have the same RANK and the same store (got 1)" in error
    assert first.first_failure(None) is None
