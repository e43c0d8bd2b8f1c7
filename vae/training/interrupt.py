"""Stop request by Ctrl-C or SIGTERM: a run finishes its current update and writes what it has."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""A batch system sends SIGTERM before it kills a job."""


class TrainingStopped(KeyboardInterrupt):
    """Training stopped on request, with a checkpoint; the text says how to resume it."""


@dataclass
class StopRequest:
    """Flag: a stop was requested."""

    requested: bool = False
    begun: bool = True
    """False while there is nothing to write: a signal then interrupts at once, and requests nothing."""

    def expect_nothing(self) -> None:
        """Let a signal interrupt at once; KeyboardInterrupt where one came before."""
        self.begun, requested, self.requested = False, self.requested, False
        if requested:
            raise KeyboardInterrupt


@contextmanager
def stop_request(begun: bool = True, insisting: bool = True) -> Iterator[StopRequest]:
    """Context manager: the first Ctrl-C or SIGTERM requests a stop, a second one interrupts at once.

    Args:
        begun: first value of `StopRequest.begun`.
        insisting: False ignores the second signal: torchrun repeats to each rank the signal of the terminal.

    Only the main thread receives signals: in any other thread, nothing changes.
    """
    request = StopRequest(begun=begun)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def take(number: int, frame: FrameType | None) -> None:
        if not request.begun or (request.requested and insisting):
            raise KeyboardInterrupt
        request.requested = True

    before = {number: signal.signal(number, take) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
