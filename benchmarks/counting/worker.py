"""Worker process that counts on request and reports the cost.

It imports no torch and holds no other data, so that its memory is that of counting; installed modules can be hidden
from it. `python -m vaefit.benchmarks.counting.worker [MODULE ...]` hides the named modules, prints its memory, then
reads requests from stdin, one JSON object a line, and answers each with another.
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
    """Request to a worker: what to count, and for how long at least."""

    counter: str
    file: str
    slices: int | None = None
    """Number of slices to count, for a counter that reads slices; None is all."""
    least_seconds: float = 0.0
    """A short call is repeated for this time."""


@dataclass(frozen=True)
class Answer:
    """Result of a call, and its cost as the mean over the calls."""

    counts: list[int] | None
    bytes: int
    way: str
    cpu: float
    """Seconds of all threads of the process, user and system."""
    wall: float
    peak: int | None
    """Peak memory of the process so far; None if the system does not report it."""


class WorkerError(RuntimeError):
    """A request failed; the text gives the reason."""


class Worker:
    """Handle of a worker process, which ends with the `with` block."""

    def __init__(self, hidden: tuple[str, ...] = ()) -> None:
        command = [sys.executable, "-m", "vaefit.benchmarks.counting.worker", *hidden]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.base: int | None = self._reply()["base"]
        """Memory of the process with everything imported and nothing counted."""

    def ask(self, request: Request) -> Answer:
        """Return the answer to a request; WorkerError if it failed."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(asdict(request)) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # _reply raises the error
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
    """Return the peak memory of this process in bytes; None if the system is not Linux."""
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
    """Answer requests until stdin ends."""
    for name in sys.argv[1:]:
        sys.modules[name] = None  # type: ignore[assignment]  # an import of it then fails
    from . import counters  # noqa: F401  # all imports belong to the base

    print(json.dumps({"base": peak_memory()}), flush=True)
    for line in sys.stdin:
        try:
            reply = asdict(_answer(Request(**json.loads(line))))
        except Exception as error:  # every error goes to the parent process
            reply = {"error": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(1)  # the parent process is interrupted too, and reports it
