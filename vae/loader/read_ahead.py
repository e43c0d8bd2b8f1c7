"""Reading ahead by threads: what comes next is ready when it is asked for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Generic, TypeVar

CacheKey = TypeVar("CacheKey")
Read = TypeVar("Read")


class ReadAhead(Generic[CacheKey, Read]):
    """What `read` gives for each key, in the order of the keys, read by threads before it is asked for.

    So many things are in memory at once as there are workers, and the one that `next` gave last, which its user lets go
    before asking for another. `read` is called with a key and a function that says whether to go on; what it gives
    after a no is dropped. An exception of `read` is raised, as it is, by the `next` that asks for what it was to read.
    """

    def __init__(
        self, read: Callable[[CacheKey, Callable[[], bool]], Read], keys: Iterable[CacheKey], workers: int
    ) -> None:
        self._read, self._keys, self._workers = read, iter(keys), workers
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="vaefit-loader")
        self._ahead: deque[Future[Read]] = deque()

    def next(self) -> Read | None:
        """What was read for the next key; None after the last. RuntimeError once this is closed."""
        if self._stopped.is_set():
            raise RuntimeError("the loader is closed")
        self._ask()
        if not self._ahead:
            return None
        try:
            found = self._ahead.popleft().result()
        except CancelledError:
            raise RuntimeError("the loader is closed") from None
        if self._stopped.is_set():  # by another thread, so that what was read may end half-way
            raise RuntimeError("the loader is closed")
        self._ask()
        return found

    def close(self) -> None:
        """Stop the threads and wait until they are gone, which takes no longer than to read a piece."""
        self._stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._ahead.clear()

    def _ask(self) -> None:
        """Have as many things read as there are workers."""
        while len(self._ahead) < self._workers:
            try:
                key = next(self._keys)
            except StopIteration:
                return
            self._ahead.append(self._pool.submit(self._read, key, self._going))

    def _going(self) -> bool:
        return not self._stopped.is_set()
