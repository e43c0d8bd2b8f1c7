"""Process group of a job: communication between the ranks, and one error on all ranks when one of them fails."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.distributed_c10d import Store

from vaefit.cache.errors import VaefitError

from ..errors import RunError
from .launch import Launch
from .rendezvous import PATIENCE, Failure, JobError, LostRankError, Rendezvous, require_equal

Part = TypeVar("Part")

_WAIT_TIMEOUT = timedelta(days=1)
"""Time in which a rank must reach the point where the others wait. It is long because a rank may compute the digest of
a huge file; the network or torchrun reports a lost rank earlier."""


class ProcessGroup:
    """Ranks of a torchrun job: a `Communicator` over gloo, and over NCCL for tensors on a GPU."""

    def __init__(self, launch: Launch, store: Store, timeout: float) -> None:
        """Connect with the other ranks over the job's store, within `timeout` seconds; JobError where that fails."""
        self.rank, self.size, self.local_size = launch.rank, launch.size, launch.local_size
        self.name = launch.job
        """Name of the job; the same after a restart."""
        self._local_rank = launch.local_rank
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        if torch.cuda.is_available() and launch.local_rank < torch.cuda.device_count():
            torch.cuda.set_device(launch.local_rank)
        first = timedelta(seconds=timeout)
        try:
            dist.init_process_group(backend, timeout=first, store=store, rank=self.rank, world_size=self.size)
            self._probe_group = dist.new_group(backend="gloo")  # only `lost_rank` uses it
        except (RuntimeError, ValueError) as error:
            where, got = f"rank {launch.rank} of {launch.size}", first_line(error)
            do = "Let the machines reach each other; GLOO_SOCKET_IFNAME names the network interface to use."
            raise JobError("the ranks of the job cannot connect", where, got, do) from error
        dist.distributed_c10d._set_pg_timeout(_WAIT_TIMEOUT)

    def add(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """Return element-wise sums over all ranks; the array has the same shape on each rank."""
        return self.add_tensor(torch.from_numpy(numbers.copy())).numpy()

    def add_tensor(self, numbers: Tensor) -> Tensor:
        """Add a tensor over all ranks, in place and on its device."""
        with lost_rank_errors():
            dist.all_reduce(numbers)
        return numbers

    def gather(self, part: Part) -> list[Part]:
        """Return the parts of all ranks in their order on rank 0, and an empty list on the others."""
        parts: list[Any] | None = [None] * self.size if self.rank == 0 else None
        with lost_rank_errors():
            dist.gather_object(part, parts)
        return parts or []

    def share(self, part: Part) -> Part:
        """Return the part of rank 0 on all ranks."""
        shared = [part]
        with lost_rank_errors():
            dist.broadcast_object_list(shared)
        return shared[0]

    def check_device(self, device: torch.device) -> None:
        """Raise RunError where this rank has no GPU of its own, or another kind of device than rank 0."""
        if kinds := self.gather({"--device": device.type}):
            require_equal(kinds)
        gpus = torch.cuda.device_count()
        if device.type == "cuda" and self._local_rank >= gpus:
            do = f"Start at most {gpus} ranks on a machine with {gpus}, or pass --device cpu."
            got = f"{self.local_size} ranks on a machine with {gpus}"
            raise RunError("every rank needs a GPU of its own", "--device", got, do)

    def leave(self) -> None:
        """Leave the job when all ranks are ready; LostRankError where one is lost."""
        with lost_rank_errors():
            dist.barrier()
        dist.destroy_process_group()

    def abandon(self) -> None:
        """Close the connections, so that ranks that wait for this one notice; over NCCL that could wait for them."""
        if dist.get_backend() == "gloo":
            dist.destroy_process_group()

    def lost_rank(self) -> LostRankError | None:
        """Return the error of a lost rank; None where all ranks answer, or one is only busy."""
        options = dist.AllreduceOptions()
        # a timeout of the work itself, because the process waits for the work before it exits
        options.timeout = timedelta(seconds=PATIENCE)
        try:
            self._probe_group.allreduce([torch.zeros(1)], options).wait()
        except RuntimeError as error:
            return LostRankError.from_text(first_line(error)) if "by peer" in str(error) else None
        return None


class _Terminated(KeyboardInterrupt):
    """SIGTERM: torchrun ends the other ranks after a failure, or a user ends the job."""


@contextmanager
def joined(launch: Launch, call: Mapping[str, str], timeout: float) -> Iterator[ProcessGroup]:
    """Context manager: join the job as one rank, within `timeout` seconds, and leave it at the end.

    `call` is what all ranks were started with, by the names of the options. The first error of any rank is raised on
    all ranks, with the number of that rank. An unexpected exception keeps its type and traceback on its own rank; the
    other ranks raise a RunError that names it.
    """
    point = Rendezvous(launch, timeout)
    versions = {f"version of {name}": version(name) for name in ("vaefit", "torch", "numpy")}
    job: ProcessGroup | None = None
    try:
        with _sigterm_as_exception():
            store = point.meet({"WORLD_SIZE": str(launch.size), **versions, **call})
            job = ProcessGroup(launch, store, timeout)
            yield job
            job.leave()
    except BaseException as error:
        found = _error_of_all(error, launch.rank, point, job)
        if launch.keeps_store:
            if job is not None:
                job.abandon()
            point.outlast()
        if found is error:
            raise
        raise found from error


def _error_of_all(error: BaseException, rank: int, point: Rendezvous, job: ProcessGroup | None) -> BaseException:
    """Return what this rank raises for its error: the first error of any rank, if there is one."""
    if isinstance(error, _Terminated):
        lost = LostRankError.from_text("SIGTERM before all had come") if job is None else job.lost_rank()
        return _with_report(point.first_failure(None, PATIENCE) or lost or point.first_failure(Failure(rank, None)))
    if isinstance(error, LostRankError) or _of_the_network(error):
        gone = error if isinstance(error, LostRankError) else LostRankError.from_text(first_line(error))
        return _with_report(point.first_failure(None, PATIENCE) or gone)
    if isinstance(error, KeyboardInterrupt):
        point.first_failure(Failure(rank, None))
    if not isinstance(error, Exception):
        return error
    expected = error if isinstance(error, VaefitError) else _system_error(error)
    got = f"{type(error).__name__}: {first_line(error)}"
    unexpected = RunError("a mistake in vaefit ended the job", got=got)  # the other ranks raise it
    failure = point.first_failure(Failure(rank, expected or unexpected))
    reported = _with_report(failure)
    return error if expected is None and failure is not None and failure.rank == rank else reported


def _system_error(error: Exception) -> VaefitError | None:
    """Return a RunError for an error of the system, and None for any other exception."""
    if isinstance(error, MemoryError):
        return RunError("this does not fit into memory")
    if isinstance(error, OSError):
        return RunError(error.strerror or str(error), str(error.filename or ""))
    return None


def _with_report(failure: Failure | LostRankError | None) -> VaefitError | KeyboardInterrupt:
    """Return the exception to raise, and write it to the report file of torchrun where there is one."""
    error = failure.as_exception() if isinstance(failure, Failure) else failure or KeyboardInterrupt()
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file and isinstance(error, VaefitError):
        stamp = {"py_callstack": str(error), "timestamp": str(int(time.time()))}
        with suppress(OSError):
            Path(file).write_text(json.dumps({"message": {"message": str(error), "extraInfo": stamp}}))
    return error


@contextmanager
def lost_rank_errors() -> Iterator[None]:
    """Context manager: raise LostRankError for an error of torch.distributed about a lost rank."""
    try:
        yield
    except RuntimeError as error:
        if not _of_the_network(error):
            raise
        raise LostRankError.from_text(first_line(error)) from error


def _of_the_network(error: BaseException) -> bool:
    """Return True for an error of the connection to another rank, for which torch uses several classes."""
    words = ("gloo", "NCCL", "by peer")
    return isinstance(error, RuntimeError) and (
        isinstance(error, dist.DistError) or any(word in str(error) for word in words)
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error without the code line and the advice that gloo adds."""
    return re.sub(r"^\[[^\]]*\] ", "", str(error).strip().partition("\n")[0].partition(". This is typically")[0])


@contextmanager
def _sigterm_as_exception() -> Iterator[None]:
    """Context manager: SIGTERM raises an exception, so that the error behind it can still be reported.

    After an error SIGTERM and Ctrl-C are ignored: torchrun sends them to ranks that already end by themselves.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except BaseException:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        raise
    signal.signal(signal.SIGTERM, before)
