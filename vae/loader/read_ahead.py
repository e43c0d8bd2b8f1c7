"""Prefetching by threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import Generic, TypeVar

Key = TypeVar("Key")
Item = TypeVar("Item")


class ReadAhead(Generic[Key, Item]):
    """Prefetched results of `read(key, keep_reading)`, in the order of the keys.

    At most `workers` results are in memory, and the last one that `next` returned until its user releases it. `read`
    may stop early once `keep_reading()` is False; its result is dropped then. An exception of `read` is raised
    unchanged by the `next` call for that key.
    """

    def __init__(self, read: Callable[[Key, Callable[[], bool]], Item], keys: Iterable[Key], workers: int) -> None:
        self._read, self._keys, self._workers = read, iter(keys), workers
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="vaefit-loader")
        self._ahead: deque[Future[Item]] = deque()

    def next(self) -> Item | None:
        """Return the result of the next key, or None after the last key; RuntimeError once this is closed."""
        if not self._stopped.is_set():
            self._submit()
            if not self._ahead:
                return None
            with suppress(CancelledError):
                found = self._ahead.popleft().result()
        if self._stopped.is_set():  # by another thread, so the result may be incomplete
            raise RuntimeError("the loader is closed")
        self._submit()
        return found

    def close(self) -> None:
        """Stop the threads and wait for their end, which takes at most the time to read one piece."""
        self._stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._ahead.clear()

    def _submit(self) -> None:
        """Keep `workers` keys in the pool."""
        for key in islice(self._keys, self._workers - len(self._ahead)):
            self._ahead.append(self._pool.submit(self._read, key, lambda: not self._stopped.is_set()))
