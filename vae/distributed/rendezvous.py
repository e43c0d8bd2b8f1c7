"""Rendezvous of a job: its store, the check that all ranks were started alike, and the first error of any rank."""

from __future__ import annotations

import json
import logging
import pickle
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple

from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import TCPStore  # type: ignore[attr-defined]

from vaefit.cache.errors import VaefitError

from ..errors import RunError
from .launch import Launch

PATIENCE = 3.0
"""Seconds in which the error of a lost rank should reach the store, and in which the other ranks should read it."""
_NOTICE_AFTER = 10.0
"""Seconds of waiting for the other ranks after which a rank logs a warning."""
_ANSWER = 10.0
"""Seconds in which a store answers a new rank."""
_PAUSE = 0.2
"""Seconds between two looks for the other ranks."""
_FAILURE = "failure"
"""Key of the first error in the store."""
_MET = "met"
"""Key of the ids of the processes, once all of them are there and alike."""

_log = logging.getLogger("vaefit")


class JobError(RunError):
    """Error of the job as a whole: its ranks were not started alike, or one of them is missing or lost."""


class LostRankError(JobError):
    """Another rank ended and left no error."""

    @classmethod
    def from_text(cls, got: str) -> LostRankError:
        """Return the error; `got` is the message of the network."""
        return cls("another process of the job is gone", got=got, do="torchrun's report says which, and how it ended.")


class Failure(NamedTuple):
    """Failure of a rank."""

    rank: int
    error: VaefitError | None
    """None for an interrupt."""

    def as_exception(self) -> VaefitError | KeyboardInterrupt:
        """Return the exception that every rank raises."""
        error = self.error
        if error is None:
            return KeyboardInterrupt()
        if isinstance(error, JobError):
            return error
        where = ", ".join(filter(None, (f"rank {self.rank}", error.where)))
        return type(error)(error.what, where, error.got, error.do)


class Rendezvous:
    """Meeting point of the ranks of a job, before there is a process group, and after it broke."""

    def __init__(self, launch: Launch, timeout: float) -> None:
        """Begin to wait; all ranks must have met within `timeout` seconds."""
        self._launch, self._timeout = launch, timeout
        self._start, self._noted = time.monotonic(), False
        self._store: Store | None = None

    def meet(self, call: Mapping[str, str]) -> Store:
        """Wait for the other ranks and return the job's store, once all of them have come with an equal `call`.

        Raises JobError where a rank does not come in time, or has another call, which it names with both values; the
        first error of any rank is that of all.
        """
        launch = self._launch
        store = self._store = PrefixStore(f"vaefit/{launch.restarts}", self._connect())
        own, keys = {"id": secrets.token_hex(8), **call}, [f"call/{rank}" for rank in range(launch.size)]
        try:
            store.set(keys[launch.rank], json.dumps(own))
            while not store.check(keys if launch.rank == 0 else [_MET]):
                if (failure := self.first_failure(None)) is not None:
                    raise failure.as_exception()
                self._wait(lambda: [rank for rank, key in enumerate(keys) if not store.check([key])] or [0])
            if launch.rank == 0:
                calls = [json.loads(store.get(key)) for key in keys]
                require_equal(calls)
                store.set(_MET, json.dumps([call["id"] for call in calls]))
            met = json.loads(store.get(_MET))
        except RuntimeError as error:
            raise LostRankError.from_text(str(error).partition("\n")[0]) from error
        if met[launch.rank] != own["id"]:
            self._store = None  # its error is not the job's
            do = f"Give each process a RANK of its own, and each job a MASTER_PORT of its own (here {launch.port})."
            raise JobError("two processes have the same RANK and the same store", "RANK", str(launch.rank), do)
        return store

    def first_failure(self, own: Failure | None, wait: float = 0.0) -> Failure | None:
        """Return the first failure of any rank, or None where none is reported in `wait` seconds.

        `own` is the failure of this rank; it becomes the first one where no rank has reported a failure.
        """
        if self._store is None:
            return own
        until = time.monotonic() + wait
        with suppress(RuntimeError):  # the store is lost too
            if own is not None:
                self._store.compare_set(_FAILURE, "", pickle.dumps(own).hex())
            while not self._store.check([_FAILURE]):
                if time.monotonic() >= until:
                    return None
                time.sleep(0.05)
            first: Failure = pickle.loads(bytes.fromhex(self._store.get(_FAILURE).decode()))
            self._store.set(f"told/{self._launch.rank}", "")
            return first
        return own

    def outlast(self) -> None:
        """Let the other ranks read the failure from a store that ends with this process."""
        if self._store is not None and self._launch.keeps_store:
            told, until = [f"told/{rank}" for rank in range(1, self._launch.size)], time.monotonic() + PATIENCE
            with suppress(RuntimeError):
                while time.monotonic() < until and not self._store.check(told):
                    time.sleep(0.05)

    def _connect(self) -> TCPStore:
        """Return the store of rank 0, or of torchrun."""
        launch = self._launch
        if launch.keeps_store:
            try:
                return TCPStore("localhost", launch.port, is_master=True, wait_for_workers=False)
            except RuntimeError as error:
                got, do = str(error).partition("\n")[0], "Choose a MASTER_PORT that is free, the same for all ranks."
                raise JobError("rank 0 cannot listen on its port", f"MASTER_PORT {launch.port}", got, do) from error
        while True:
            try:
                return _store_at(launch.address, launch.port)
            except OSError as error:
                reason = error.strerror or str(error)
            self._wait(lambda: [0], reason)

    def _wait(self, missing: Callable[[], Sequence[int]], reason: str = "") -> None:
        """Pause; log once which ranks are missing, and raise JobError when the time is over."""
        launch, waited = self._launch, time.monotonic() - self._start
        over = waited >= self._timeout
        if over or (waited >= _NOTICE_AFTER and not self._noted):
            at = f"MASTER_ADDR {launch.address}, MASTER_PORT {launch.port}"
            ranks = missing()
            whom = f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))} of {launch.size}"
            if over:
                got = ": ".join(filter(None, [f"nothing from {whom} in {self._timeout:g} s", reason]))
                do = "Start every rank with the same address and port, or raise --rank-timeout."
                raise JobError("the job is not complete", at, got, do)
            why = f" ({reason})" if reason else ""
            rest = f"for up to {self._timeout:g} s (--rank-timeout); unset RANK to run one process"
            _log.warning(f"rank {launch.rank} waits for {whom} at {at}{why}, {rest}", extra={"every_rank": True})
            self._noted = True
        time.sleep(_PAUSE)


def _store_at(address: str, port: int) -> TCPStore:
    """Return the store at an address; OSError where none answers."""
    socket.create_connection((address, port), _ANSWER).close()
    found: list[TCPStore] = []

    def connect() -> None:
        with suppress(RuntimeError):
            found.append(TCPStore(address, port, wait_for_workers=False, timeout=timedelta(seconds=_ANSWER)))

    # in a thread: where another kind of server listens it waits for ever, deaf to signals
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_ANSWER)
    if not found:
        raise OSError("what listens there is no store of a job")
    return found[0]


def require_equal(calls: Sequence[Mapping[str, str]]) -> None:
    """Raise JobError for the first rank whose call differs from that of rank 0."""
    first = calls[0]
    for rank, call in enumerate(calls):
        names = [name for name in {**first, **call} if name != "id" and first.get(name) != call.get(name)]
        if names:
            if "command" in names:
                names = names[: names.index("command") + 1]  # another command has other options
            pairs = [f"{first.get(name)} on rank 0, {call.get(name)} on rank {rank}" for name in names]
            do = "Start every rank with the same command line and the same versions."
            raise JobError("the ranks of the job were started differently", ", ".join(names), "; ".join(pairs), do)
