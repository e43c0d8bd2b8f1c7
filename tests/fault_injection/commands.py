"""Commands of the command line, each in a fork of this process, which has imported everything."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

OPTIONAL = ("lightning_callback", "tensorboard_events", "kernels._triton")


@cache
def _import_everything() -> None:
    """Import every module, so that a fork need not; draw the curves as empty files: they cost more than the rest."""
    for name in ("kernels", "cache", "vae", "cli"):
        package = import_module(f"vaefit.{name}")
        for found in walk_packages(package.__path__, f"vaefit.{name}."):
            if not found.name.endswith("__main__") and not any(part in found.name for part in OPTIONAL):
                import_module(found.name)
    import_module("safetensors.torch")
    for name in ("draw_curves", "draw_training_curves"):
        setattr(import_module("vaefit.vae.report.curves"), name, lambda _, out: out.touch())


@dataclass(frozen=True)
class Ended:
    """End of a command: its exit code, or None where it was killed, and its output."""

    code: int | None
    out: str
    err: str
    seconds: float
    peak: int
    """Bytes of memory beyond those at the fork."""

    @property
    def fault(self) -> str:
        """Return the fault of the end, whatever the command: a traceback, a crash, or too much time; else empty."""
        if self.code is None:
            return "out of time or a crash"
        if "Traceback" in self.err or "mistake in vaefit" in self.out + self.err:
            return "a traceback"
        if self.code not in (0, 1, 2, 3) or (self.code > 1 and not self.out and self.err.count("error: ") != 1):
            return f"exit {self.code} without one error"
        return ""

    @property
    def last(self) -> str:
        """Return the last line of stderr, else of stdout."""
        return ["", *(self.out + self.err).strip().splitlines()][-1][:300]


class Started:
    """A command in a fork; its output goes to files in `folder`, which must exist."""

    def __init__(self, arguments: list[str], folder: Path, cpu_s: int = 120, memory: int | None = None) -> None:
        self._out, self._err, self._begin = folder / "stdout", folder / "stderr", time.monotonic()
        _import_everything()
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                for stream, file in ((1, self._out), (2, self._err)):
                    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
                sys.stdout, sys.stderr = (open(stream, "w", encoding="utf-8", closefd=False) for stream in (1, 2))  # noqa: SIM115
                resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, resource.RLIM_INFINITY))
                if memory is not None:
                    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                    resource.setrlimit(resource.RLIMIT_AS, (taken + memory, resource.RLIM_INFINITY))
                code = import_module("vaefit.cli").run(arguments)
            finally:
                for output in (sys.stdout, sys.stderr):
                    output.flush()
                os._exit(code)

    def kill(self) -> None:
        """Send SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)

    def ended(self, wall_s: float = 300.0) -> Ended:
        """Wait for the end, at most so many seconds from the start, then kill."""
        while True:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > self._begin + wall_s:
                self.kill()
                wall_s = float("inf")
            time.sleep(0.005)
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        texts = (file.read_text(errors="replace") if file.exists() else "" for file in (self._out, self._err))
        peak = usage.ru_maxrss << 10
        return Ended(code, *texts, seconds=time.monotonic() - self._begin, peak=peak)
