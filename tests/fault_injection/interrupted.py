"""SIGKILL at random moments of checks, sweeps and counts: the same command again ends as if it was never killed."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from tests.fault_injection.commands import Started
from tests.fault_injection.rivals import CHECK
from tests.fault_injection.tally import Tally

COMMANDS = ("overfit", "sweep", "weights")


def command_kills(count: int, seed: int) -> Tally:
    """Kill so many commands, look at what they left, and run each of them again."""
    tally = Tally("kills of commands", f"{count} kills, seed {seed}")
    rng = np.random.default_rng([seed, 17])
    with tempfile.TemporaryDirectory() as folder:
        victims = [_Victim(command, Path(folder)) for command in COMMANDS]
        for number in range(count):
            end, wrong = victims[number % len(victims)].killed(float(rng.uniform(0, 0.8)))
            tally.add(wrong or end, bool(wrong), wrong)
    return tally.done()


class _Victim:
    """A command, the time that it takes, and the files that it leaves."""

    def __init__(self, command: str, folder: Path) -> None:
        self.command, self.place = command, folder / command
        self.place.mkdir()
        os.environ["XDG_CACHE_HOME"] = str(folder / "home")
        self.data, self.out = self.place / "data.h5", self.place / "out"
        with h5py.File(self.data, "w") as handle:
            handle["grids"] = np.random.default_rng(3).integers(0, 4, (64, 6, 6), dtype=np.uint8)
        self.line = [command, str(self.data), "--json", "--quiet", *(("--rebuild",) if command == "weights" else ())]
        if command != "weights":
            self.line += [*CHECK, "--out", str(self.out), "--overwrite"]
        if command == "sweep":
            self.line += ["--seeds", "2"]
        begin = time.monotonic()
        if wrong := self.again():
            raise RuntimeError(f"{command} failed without any kill: {wrong}")
        self.seconds, self.whole = time.monotonic() - begin, self.left()

    def again(self) -> str:
        """Run the command to its end and return what is wrong with that."""
        ended = Started(self.line, self.place).ended()
        return ended.fault or ("" if ended.code in (0, 1) else ended.last)

    def left(self) -> dict[str, object]:
        """Return the files that a whole command leaves, with the content of those that are the same each time."""
        found = {str(file.relative_to(self.place)): file for file in self.place.rglob("*") if file.is_file()}
        same = ("metrics.csv", "model.safetensors")
        return {name: file.read_bytes() if file.name in same else b"" for name, file in found.items()}

    def killed(self, share: float) -> tuple[str, str]:
        """Kill the command after a share of its time; return how that ended, and what was wrong."""
        run = Started(self.line, self.place)
        time.sleep(share * self.seconds)
        run.kill()
        begun = run.ended().code is None
        torn = [str(file) for file in self.place.rglob("*.json") if ".tmp" not in file.name and not _is_json(file)]
        shown = Started(["show", str(self.out)], self.place).ended()
        wrong = ", ".join(f"{file} is torn" for file in torn) or shown.fault or self.again()
        if not wrong and self.left() != self.whole:
            wrong = f"other files: {sorted(set(self.left()) ^ set(self.whole)) or 'the same names'}"
        end = f"{self.command}: {'killed' if begun else 'done before the kill'}, whole at the end"
        return end, wrong and f"{self.command}: {wrong}"


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_bytes())
    except ValueError:
        return False
    return True
