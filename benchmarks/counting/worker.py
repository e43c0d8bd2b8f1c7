"""A process of its own that counts when asked, and says what that cost.

It holds neither torch nor the data of whoever asks, so that its memory is that of counting, and it can be started
without a library that is installed. `python -m vaefit.benchmarks.counting.worker [MODULE ...]` hides the modules named,
answers with its memory, then reads requests from stdin, a JSON object a line, and answers each with another.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

MOST_CALLS = 1000


@dataclass(frozen=True)
class Request:
    """What to count, and how long at least."""

    counter: str
    file: str
    slices: int | None = None
    """Only so many slices, where the counter takes slices."""
    least_seconds: float = 0.0
    """A short call is repeated until they are over."""


@dataclass(frozen=True)
class Answer:
    """What a call found, and its cost as the mean over the calls."""

    counts: list[int] | None
    bytes: int
    way: str
    cpu: float
    """Seconds of all threads of the process, user and system."""
    wall: float
    peak: int | None
    """The most memory that the process has held so far; None where the system does not tell."""


class WorkerError(RuntimeError):
    """A worker could not do what was asked; says why."""


class Worker:
    """The other end of such a process; it ends with the `with` block."""

    def __init__(self, hidden: tuple[str, ...] = ()) -> None:
        command = [sys.executable, "-m", "vaefit.benchmarks.counting.worker", *hidden]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.base: int | None = self._reply()["base"]
        """Memory of the process with everything imported and nothing counted."""

    def ask(self, request: Request) -> Answer:
        """Have it counted; WorkerError where that failed."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(asdict(request)) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the reply says so
        return Answer(**self._reply())

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"its process ended with {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise WorkerError(found["error"])
        return found

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        # closes both pipes; without further requests the process ends
        self._process.communicate()


def peak_memory() -> int | None:
    """The most memory that this process has held, in bytes; None where the system is not Linux."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)


def _answer(request: Request) -> Answer:
    from .counters import COUNTERS, prepare

    call, file = COUNTERS[request.counter], Path(request.file)
    calls = 0
    prepare(request.counter)
    cpu, wall = time.process_time(), time.perf_counter()
    while True:
        found = call(file, request.slices)
        calls += 1
        spent = time.perf_counter() - wall
        if spent >= request.least_seconds or calls == MOST_CALLS:
            break
    cpu = time.process_time() - cpu
    return Answer(found.counts, found.bytes, found.way, cpu / calls, spent / calls, peak_memory())


def main() -> None:
    """Answer until stdin ends."""
    for name in sys.argv[1:]:
        sys.modules[name] = None  # type: ignore[assignment]  # what Python takes for not installed
    from . import counters  # noqa: F401  # all imports belong to the base

    print(json.dumps({"base": peak_memory()}), flush=True)
    for line in sys.stdin:
        try:
            reply = asdict(_answer(Request(**json.loads(line))))
        except Exception as error:  # whatever it is, whoever asked is told
            reply = {"error": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(1)  # whoever asked was interrupted, too, and tells of it
