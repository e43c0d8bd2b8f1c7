"""Process group of a job: communication between the ranks, and one error on all ranks when one of them fails."""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from vaefit.cache.errors import VaefitError

from ..errors import RunError
from .launch import Launch

Part = TypeVar("Part")

_FAILURE = "failure"
"""Key of the first error in the job's store."""
_PATIENCE = 3.0
"""Seconds in which the error of a lost rank should reach the store."""
_NOTICE_AFTER = 15.0
"""Seconds of waiting for the other ranks after which a rank logs a warning."""
_JOIN_TIMEOUT = timedelta(minutes=10)
"""Time in which all ranks must start."""
_WAIT_TIMEOUT = timedelta(days=1)
"""Time in which a rank must reach the point where the others wait. It is long because a rank may compute the digest of
a huge file; the network or torchrun reports a lost rank earlier."""

_log = logging.getLogger("vaefit")


class LostRankError(RunError):
    """Another rank ended and left no error."""

    @classmethod
    def from_text(cls, got: str) -> LostRankError:
        """Return the error; `got` is the message of the network."""
        return cls("another process of the job is gone", got=got, do="torchrun's report says which, and how it ended.")


class ProcessGroup:
    """Ranks of a torchrun job: a `Communicator` over gloo, and over NCCL for tensors on a GPU."""

    def __init__(self, launch: Launch) -> None:
        """Join the job; RunError where the other ranks cannot be reached."""
        self.rank, self.size, self.local_size = launch.rank, launch.size, launch.local_size
        self.name = launch.job
        """Name of the job; the same after a restart."""
        self._local_rank = launch.local_rank
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        if torch.cuda.is_available() and launch.local_rank < torch.cuda.device_count():
            torch.cuda.set_device(launch.local_rank)
        note = "waiting for the other processes of the job; unset RANK to run one process"
        notice = threading.Timer(_NOTICE_AFTER, _log.warning, [note])
        notice.daemon = True
        notice.start()
        try:
            store, rank, size = next(rendezvous("env://", timeout=_JOIN_TIMEOUT))
            # torchrun may use one store for all restarts, with the addresses of lost ranks
            self._store = PrefixStore(f"vaefit/{launch.restarts}", store)
            dist.init_process_group(backend, timeout=_WAIT_TIMEOUT, store=self._store, rank=rank, world_size=size)
            self._probe_group = dist.new_group(backend="gloo")  # only `lost_rank` uses it
        except (RuntimeError, ValueError) as error:
            where = f"rank {launch.rank} of {launch.size}"
            do = "Start the job anew, by torchrun."
            raise RunError("the other processes of the job cannot be reached", where, _first_line(error), do) from error
        finally:
            notice.cancel()

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
        """Raise RunError where this rank has no GPU of its own."""
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

    def lost_rank(self) -> LostRankError | None:
        """Return the error of a lost rank; None where all ranks answer, or one is only busy."""
        options = dist.AllreduceOptions()
        # a timeout of the work itself, because the process waits for the work before it exits
        options.timeout = timedelta(seconds=_PATIENCE)
        try:
            self._probe_group.allreduce([torch.zeros(1)], options).wait()
        except RuntimeError as error:
            return LostRankError.from_text(_first_line(error)) if "by peer" in str(error) else None
        return None

    def first_failure(self, own: _Failure | None, wait: float = 0.0) -> _Failure | None:
        """Return the first failure of any rank, or None where none is reported in `wait` seconds.

        `own` is the failure of this rank; it becomes the first one where no rank has reported a failure.
        """
        until = time.monotonic() + wait
        with suppress(RuntimeError):  # the store is lost too
            if own is not None:
                self._store.compare_set(_FAILURE, "", pickle.dumps(own).hex())
            while not self._store.check([_FAILURE]):
                if time.monotonic() >= until:
                    return None
                time.sleep(0.05)
            first: _Failure = pickle.loads(bytes.fromhex(self._store.get(_FAILURE).decode()))
            return first
        return own


class _Failure(NamedTuple):
    """Failure of a rank."""

    rank: int
    error: VaefitError | None
    """None for an interrupt."""

    def as_exception(self) -> VaefitError | KeyboardInterrupt:
        """Return the exception that every rank raises."""
        error = self.error
        if error is None:
            return KeyboardInterrupt()
        where = ", ".join(filter(None, (f"rank {self.rank}", error.where)))
        return type(error)(error.what, where, error.got, error.do)


class _Terminated(KeyboardInterrupt):
    """SIGTERM: torchrun ends the other ranks after a failure, or a user ends the job."""


@contextmanager
def joined(launch: Launch) -> Iterator[ProcessGroup]:
    """Context manager: join the job as one rank, and leave it at the end.

    The first error of any rank is raised on all ranks, with the number of that rank. An unexpected exception keeps its
    type and traceback on its own rank; the other ranks raise a RunError that names it.
    """
    job = ProcessGroup(launch)
    try:
        with _sigterm_as_exception():
            yield job
            job.leave()
    except _Terminated as terminated:
        failure = job.first_failure(None, _PATIENCE) or job.lost_rank() or job.first_failure(_Failure(job.rank, None))
        raise _with_report(failure) from terminated
    except KeyboardInterrupt:
        job.first_failure(_Failure(job.rank, None))
        raise
    except (LostRankError, dist.DistError) as error:
        lost = error if isinstance(error, LostRankError) else LostRankError.from_text(_first_line(error))
        raise _with_report(job.first_failure(None, _PATIENCE) or lost) from error
    except Exception as error:
        expected = error if isinstance(error, VaefitError) else _system_error(error)
        got = f"{type(error).__name__}: {_first_line(error)}"
        unexpected = RunError("a mistake in vaefit ended the job", got=got)  # the other ranks raise it
        failure = job.first_failure(_Failure(job.rank, expected or unexpected))
        if expected is None and failure is not None and failure.rank == job.rank:
            _with_report(failure)
            raise
        raise _with_report(failure) from error


def _system_error(error: Exception) -> VaefitError | None:
    """Return a RunError for an error of the system, and None for any other exception."""
    if isinstance(error, MemoryError):
        return RunError("this does not fit into memory")
    if isinstance(error, OSError):
        return RunError(error.strerror or str(error), str(error.filename or ""))
    return None


def _with_report(failure: _Failure | LostRankError | None) -> VaefitError | KeyboardInterrupt:
    """Return the exception to raise, and write it to the report file of torchrun where there is one."""
    error = failure.as_exception() if isinstance(failure, _Failure) else failure or KeyboardInterrupt()
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
        # torch uses several classes of errors
        if isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "NCCL", "by peer")):
            raise LostRankError.from_text(_first_line(error)) from error
        raise


def _first_line(error: Exception) -> str:
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
