"""Tasks that may crash, hang or eat the memory, each in a fork of its own of a process that has imported everything.

`Forks` is the side that asks; `python -m tests.fault_injection.sandbox` the process that forks. A fork costs some
milliseconds, so that thousands of damaged files can be read without one harming the next.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from types import TracebackType

import vaefit.cache
from tests.fault_injection.plain import WAYS, plain_counts
from tests.fault_injection.protocol import End, Report, Task
from tests.fault_injection.task import count, rewrite


class Forks:
    """A process that does one task after another, each in a fork of it."""

    def __init__(self, cache_home: Path | None = None, before: Sequence[str] = (), checked: bool = False) -> None:
        """Put the user's cache folder below `cache_home`; `before` is a command that runs its arguments.

        Where `checked`, Python looks behind its buffers for bytes that were written there, and ends the fork.
        """
        self._before = before
        self._own = {} if cache_home is None else {"XDG_CACHE_HOME": str(cache_home)}
        if checked:
            self._own["PYTHONMALLOC"] = "debug"

    def __enter__(self) -> Forks:
        environment = {**os.environ, **self._own, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [*self._before, sys.executable, "-m", "tests.fault_injection.sandbox"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate()

    def run(self, task: Task) -> Report:
        """Do one task and wait for its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(task)) + "\n")
        self._process.stdin.flush()
        return Report.from_json(self._process.stdout.readline())


def _forked(task: Task) -> Report:
    """Do the task in a fork, and tell how that ended."""
    reading, writing = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.write(writing, json.dumps(asdict(_limited(task))).encode())
        finally:
            os._exit(0)
    os.close(writing)
    until = start + (task.wall_s if task.kill_after is None else task.kill_after)
    said = b""
    while True:
        ready = select.select([reading], [], [], max(0.0, until - time.monotonic()))[0]
        if not ready:
            os.kill(child, signal.SIGKILL)
            break
        piece = os.read(reading, 1 << 16)
        if not piece:
            break
        said += piece
    os.close(reading)
    status = os.waitpid(child, 0)[1]
    seconds = time.monotonic() - start
    if said and not os.WIFSIGNALED(status):
        return Report.from_json(said.decode())
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number == signal.SIGKILL:
        end: End = "time" if task.kill_after is None else "killed"
    else:
        end = "time" if number == signal.SIGXCPU else "crash"
    return Report(end, text=signal.Signals(number).name if number else "no report", seconds=seconds)


def _limited(task: Task) -> Report:
    """The task itself, under its limits."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)  # what the C library says of its own corruption
    os.chdir(task.folder)
    resource.setrlimit(resource.RLIMIT_CPU, (task.cpu_s, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if task.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (task.file_bytes, task.file_bytes))
    if task.user is not None:
        os.setgroups([])
        os.setgid(task.user)
        os.setuid(task.user)
    if task.memory is not None:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + task.memory, resource.RLIM_INFINITY))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    report = _done(task)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return Report(**{**asdict(report), "seconds": time.perf_counter() - start, "peak": peak})


def _done(task: Task) -> Report:
    try:
        if task.do in WAYS:
            try:
                return Report("counts", plain_counts(task.file, task.dataset, task.do))
            except MemoryError as error:
                return Report("memory", text=str(error))
            except Exception as error:  # whatever h5py says of a damaged file is an answer
                return Report("error", text=f"{type(error).__name__}: {error}")
        if task.do == "rewrite":
            rewrite(task)
        return count(task)
    except MemoryError:
        return Report("memory", text=traceback.format_exc(limit=-4))
    except BaseException:
        return Report("traceback", text=traceback.format_exc(limit=-6))


def main() -> int:
    """Do the tasks on stdin, a JSON object a line, and print a report a line."""
    # in each fork an import would take longer than the task, and another user may not be let in here
    names = ["deflate", "hdf5plugin", "concurrent.futures.thread", "platformdirs.unix"]
    names += [module.name for module in walk_packages(vaefit.cache.__path__, "vaefit.cache.")]
    for name in names:
        with suppress(ImportError):
            import_module(name)
    for line in sys.stdin:
        print(json.dumps(asdict(_forked(Task(**json.loads(line))))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
