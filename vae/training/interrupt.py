"""Ctrl-C during training: the update that is being made is finished, so that a checkpoint can be written of it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""The second is what a batch system sends before it kills."""


class TrainingStopped(KeyboardInterrupt):
    """Training was asked to stop and has, with a checkpoint; the text says how to go on."""


@dataclass
class StopRequest:
    """Whether the run was asked to stop."""

    asked: bool = False


@contextmanager
def stop_request(insisting: bool = True) -> Iterator[StopRequest]:
    """Take a first Ctrl-C, or SIGTERM, as a request; a second one interrupts at once, as it does outside.

    Not where nobody is `insisting`: torchrun passes on to each rank what the terminal has sent it already.

    Only the main thread gets signals: in any other, nothing is changed.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def take(number: int, frame: FrameType | None) -> None:
        if request.asked and insisting:
            raise KeyboardInterrupt
        request.asked = True

    before = {number: signal.signal(number, take) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
