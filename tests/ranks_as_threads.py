"""Ranks that are threads of this process, for tests of several ranks without a job."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Found = TypeVar("Found")
Part = TypeVar("Part")


class Meeting:
    """Exchange of values between the threads."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=60)
        self.parts: list[Any] = [None] * size

    def exchange(self, rank: int, part: Part) -> list[Part]:
        self.parts[rank] = part
        self.barrier.wait()
        found = list(self.parts)
        self.barrier.wait()
        return found


class ThreadRank:
    """`Communicator` of one thread."""

    def __init__(self, rank: int, size: int, meeting: Meeting) -> None:
        self.rank, self.size, self.local_size = rank, size, size
        self._meeting = meeting

    def add(self, numbers: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = np.sum(self._meeting.exchange(self.rank, numbers), axis=0)
        return found

    def gather(self, part: Part) -> list[Part]:
        found = self._meeting.exchange(self.rank, pickle.dumps(part))
        return [pickle.loads(text) for text in found] if self.rank == 0 else []

    def share(self, found: Part) -> Part:
        shared: Part = pickle.loads(self._meeting.exchange(self.rank, pickle.dumps(found))[0])
        return shared


def together(size: int, call: Callable[[Any], Found], kind: type[ThreadRank] = ThreadRank) -> list[Found]:
    """Return what `call` returns on each rank; raise the first error of a rank, which ends all of them."""
    meeting = Meeting(size)
    errors: list[BaseException] = []

    def one(rank: int) -> Found | None:
        try:
            return call(kind(rank, size, meeting))
        except threading.BrokenBarrierError:
            return None
        except BaseException as error:
            errors.append(error)
            meeting.barrier.abort()
            return None

    with ThreadPoolExecutor(size) as pool:
        found = list(pool.map(one, range(size)))
    if errors:
        raise errors[0]
    return [part for part in found if part is not None]
