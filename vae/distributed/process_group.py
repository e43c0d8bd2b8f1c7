"""One process of a job: how it talks to the others, and how the failure of one of them becomes the error of all."""

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
from typing import Any, TypeVar

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
"""Where in the job's store the first error lies."""
_PATIENCE = 3.0
"""Seconds in which the error of a rank that is gone should have reached the store."""
_QUIET = 15.0
"""Seconds after which one that waits to join says so."""
_JOINING = timedelta(minutes=10)
"""In which all ranks must have started."""
_WAITING = timedelta(days=1)
"""In which a rank must have come to where the others wait: one may take the digest of a huge file meanwhile, and of a
rank that is gone the network tells, or torchrun."""

_log = logging.getLogger("vaefit")


class LostRankError(RunError):
    """Another rank is gone, and left no word."""

    @classmethod
    def from_text(cls, got: str) -> LostRankError:
        """`got` is what the network says."""
        return cls("another process of the job is gone", got=got, do="torchrun's report says which, and how it ended.")


class ProcessGroup:
    """The ranks of a torchrun job: a `Communicator` over gloo, and over NCCL for tensors on a GPU."""

    def __init__(self, launch: Launch) -> None:
        """Join; RunError where the others cannot be reached."""
        self.rank, self.size, self.local_size = launch.rank, launch.size, launch.local_size
        self.name = launch.job
        """Whose it is; the same after a restart."""
        self._local_rank = launch.local_rank
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        if torch.cuda.is_available() and launch.local_rank < torch.cuda.device_count():
            torch.cuda.set_device(launch.local_rank)
        alone = threading.Timer(
            _QUIET, _log.warning, ["waiting for the other processes of the job; unset RANK to run one"]
        )
        alone.daemon = True
        alone.start()
        try:
            store, rank, size = next(rendezvous("env://", timeout=_JOINING))
            # torchrun may keep one store for all its attempts, with the addresses of ranks that are gone
            self._store = PrefixStore(f"vaefit/{launch.restarts}", store)
            dist.init_process_group(backend, timeout=_WAITING, store=self._store, rank=rank, world_size=size)
            self._asked = dist.new_group(backend="gloo")  # nobody waits in it for anything else
        except (RuntimeError, ValueError) as error:
            where = f"rank {launch.rank} of {launch.size}"
            do = "Start the job anew, by torchrun."
            raise RunError("the other processes of the job cannot be reached", where, _line(error), do) from error
        finally:
            alone.cancel()

    def add(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """Element-wise sums over all ranks of an array, which has one shape on each of them."""
        found: NDArray[Any] = self.add_tensor(torch.from_numpy(numbers.copy())).numpy()
        return found

    def add_tensor(self, numbers: Tensor) -> Tensor:
        """The same of a tensor, where it is and in place."""
        with losing():
            dist.all_reduce(numbers)
        return numbers

    def gather(self, part: Part) -> list[Part]:
        """Every rank's part, by rank, for rank 0; an empty list for the others."""
        found: list[Any] | None = [None] * self.size if self.rank == 0 else None
        with losing():
            dist.gather_object(part, found)
        return found or []

    def share(self, found: Part) -> Part:
        """What rank 0 has, for all of them."""
        shared: list[Any] = [found]
        with losing():
            dist.broadcast_object_list(shared)
        only: Part = shared[0]
        return only

    def check_device(self, device: torch.device) -> None:
        """RunError where the rank would compute on a GPU that another one has."""
        found = torch.cuda.device_count()
        if device.type == "cuda" and self._local_rank >= found:
            do = f"Start at most {found} ranks on a machine with {found}, or pass --device cpu."
            got = f"{self.local_size} ranks on a machine with {found}"
            raise RunError("every rank needs a GPU of its own", "--device", got, do)

    def leave(self) -> None:
        """Leave, once all others are ready to; LostRankError where one never will be."""
        with losing():
            dist.barrier()
        dist.destroy_process_group()

    def lost(self) -> LostRankError | None:
        """The error of a rank that is gone; None where all answer, and where one is only busy."""
        told = dist.AllreduceOptions()
        told.timeout = timedelta(seconds=_PATIENCE)  # of the work itself, for which the end of the process would wait
        try:
            self._asked.allreduce([torch.zeros(1)], told).wait()
        except RuntimeError as error:
            return LostRankError.from_text(_line(error)) if "by peer" in str(error) else None
        return None

    def first_failure(self, mine: _Failure | None, wait: float = 0.0) -> _Failure | None:
        """The failure that was told first, by whichever rank; `mine` where there is none yet. None if none comes."""
        until = time.monotonic() + wait
        with suppress(RuntimeError):  # the store is gone too
            if mine is not None:
                told = self._store.compare_set(_FAILURE, "", mine.text())
                return _Failure.from_text(told)
            while True:
                if self._store.check([_FAILURE]):
                    return _Failure.from_text(self._store.get(_FAILURE))
                if time.monotonic() >= until:
                    break
                time.sleep(0.05)
        return mine


class _Failure:
    """What ended a rank, and which: an error, or None where somebody asked it to end."""

    def __init__(self, rank: int, error: VaefitError | None) -> None:
        self.rank, self.error = rank, error

    def text(self) -> str:
        return pickle.dumps((self.rank, self.error)).hex()

    @classmethod
    def from_text(cls, text: str | bytes) -> _Failure:
        return cls(*pickle.loads(bytes.fromhex(text if isinstance(text, str) else text.decode())))

    def anywhere(self) -> VaefitError | KeyboardInterrupt:
        """The same as any rank raises it."""
        error = self.error
        if error is None:
            return KeyboardInterrupt()
        where = ", ".join(filter(None, (f"rank {self.rank}", error.where)))
        return type(error)(error.what, where, error.got, error.do)


class _Ended(KeyboardInterrupt):
    """SIGTERM: torchrun ends the ranks that are left, or somebody ends the job."""


@contextmanager
def joined(launch: Launch) -> Iterator[ProcessGroup]:
    """Be one of the job's ranks. The first error of any of them is raised on all; what else happens is raised as it is.

    An error that is none of ours, a mistake, keeps its traceback on the rank that made it.
    """
    job = ProcessGroup(launch)
    try:
        with _signals():
            yield job
            job.leave()
    except _Ended as ended:
        failure = job.first_failure(None, _PATIENCE) or job.lost() or job.first_failure(_Failure(job.rank, None))
        raise _reported(failure) from ended
    except KeyboardInterrupt:
        job.first_failure(_Failure(job.rank, None))
        raise
    except (LostRankError, dist.DistError) as error:
        lost = error if isinstance(error, LostRankError) else LostRankError.from_text(_line(error))
        raise _reported(job.first_failure(None, _PATIENCE) or lost) from error
    except Exception as error:
        told = error if isinstance(error, VaefitError) else _plain(error)
        failure = job.first_failure(_Failure(job.rank, told or _mistake(error)))
        if told is None and failure is not None and failure.rank == job.rank:
            _reported(failure)
            raise
        raise _reported(failure) from error


def _plain(error: Exception) -> VaefitError | None:
    """One of ours for an error of the system; None for a mistake."""
    if isinstance(error, MemoryError):
        return RunError("this does not fit into memory")
    if isinstance(error, OSError):
        return RunError(error.strerror or str(error), str(error.filename or ""))
    return None


def _mistake(error: Exception) -> VaefitError:
    """What the other ranks are told of a mistake."""
    return RunError("a mistake in vaefit ended the job", got=f"{type(error).__name__}: {_line(error)}")


def _reported(failure: _Failure | LostRankError | None) -> VaefitError | KeyboardInterrupt:
    """The error to raise; torchrun's own report names it too, where it asks for it."""
    error = failure.anywhere() if isinstance(failure, _Failure) else failure or KeyboardInterrupt()
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file and isinstance(error, VaefitError):
        stamp = {"py_callstack": str(error), "timestamp": str(int(time.time()))}
        with suppress(OSError):
            Path(file).write_text(json.dumps({"message": {"message": str(error), "extraInfo": stamp}}))
    return error


def _by_network(error: RuntimeError) -> bool:
    """Another rank is the cause: the network says so, by whatever class of error."""
    return isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "NCCL", "by peer"))


@contextmanager
def losing() -> Iterator[None]:
    """Raise LostRankError for what torch.distributed says of a rank that is gone."""
    try:
        yield
    except RuntimeError as error:
        if _by_network(error):
            raise LostRankError.from_text(_line(error)) from error
        raise


def _line(error: Exception) -> str:
    """The first line of an error, without the line of code and the advice that gloo puts around it."""
    return re.sub(r"^\[[^\]]*\] ", "", str(error).strip().partition("\n")[0].partition(". This is typically")[0])


@contextmanager
def _signals() -> Iterator[None]:
    """Let SIGTERM be an exception, so that the error which it is the consequence of can still be told.

    After an error it is ignored, and Ctrl-C with it: torchrun sends them to ranks that are about to end by themselves.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise _Ended

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except BaseException:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        raise
    signal.signal(signal.SIGTERM, before)
