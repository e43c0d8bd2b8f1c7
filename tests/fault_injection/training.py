"""SIGKILL at random moments of a training run: resumed, it ends with the bytes of a run that was never killed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from tests.fault_injection.tally import Tally

OPTIONS = (
    "--epochs", "3", "--batch-size", "32", "--latent-dim", "8", "--validate-every", "7", "--checkpoint-every", "0.1",
    "--augment", "rotate,colours", "--z", "sample", "--beta", "0.1", "--threads", "1", "--quiet",
)  # fmt: skip
"""Everything that draws random numbers, rows and checkpoints often, and an end that is not that of an epoch's rows."""
COMPARED = ("metrics.csv", "steps.csv", "model.safetensors")
AGAIN = 0.3
"""Of the resumed runs, so many are killed as well."""
GRIDS = 800


def training_kills(count: int, seed: int) -> Tally:
    """Kill `count` training processes, resume each run to its end, and compare that with a run never killed."""
    tally = Tally("kills of training", f"{count} kills, seed {seed}")
    rng = np.random.default_rng([seed, 7])
    with tempfile.TemporaryDirectory() as folder:
        victim = _Victim.made(Path(folder))
        for _ in range(count):
            end, bad, words = victim.killed(rng)
            tally.add(end, bad, words)
        tally.figures["seconds of a whole run"] = round(victim.seconds, 1)
    return tally.done()


@dataclass(frozen=True)
class _Victim:
    """Runs on one dataset, in a folder of their own."""

    folder: Path
    whole: dict[str, bytes]
    """What a run leaves that nobody killed."""
    seconds: float
    """How long that took, and how much of it went before the first update."""
    begins: float

    @classmethod
    def made(cls, folder: Path) -> _Victim:
        """Write the dataset and let one run come to its end."""
        cells = np.random.default_rng(3).integers(1, 8, (GRIDS, 12, 12), dtype=np.uint8)
        cells[np.random.default_rng(4).random(cells.shape) < 0.9] = 0
        with h5py.File(folder / "data.h5", "w") as handle:
            handle.create_dataset("grids", data=cells, chunks=(64, 12, 12), compression="gzip")
        start = time.monotonic()
        run = _start(folder / "data.h5", "--out", str(folder / "whole"))
        while run.poll() is None and not (folder / "whole" / "checkpoints").exists():
            time.sleep(0.01)
        begins = time.monotonic() - start
        _, said = run.communicate()
        if run.returncode != 0:
            raise RuntimeError(f"the run failed without any kill: {said}")
        whole = {name: (folder / "whole" / name).read_bytes() for name in COMPARED}
        return cls(folder, whole, time.monotonic() - start, begins)

    def killed(self, rng: np.random.Generator) -> tuple[str, bool, str]:
        """Kill one run, perhaps more than once, and see how it ends: in which way, whether that is bad, and words."""
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            out = Path(place) / "run"
            moments = list(self._moments(rng))
            killed = 0
            for moment in moments:
                run = self._go_on(out)
                try:
                    run.wait(moment)
                except subprocess.TimeoutExpired:
                    run.kill()
                    killed += 1
                run.communicate()
            begun = (out / "checkpoints").exists()
            run = self._go_on(out)
            _, said = run.communicate()
            words = f"killed after {', '.join(f'{m:.3f}' for m in moments)} s"
            if run.returncode != 0:
                return "the resumed run failed", True, f"{words}: {said.strip()}"
            for name, content in self.whole.items():
                if (out / name).read_bytes() != content:
                    return f"another {name}", True, words
        if not killed:
            return "done before the kill", False, ""
        return ("resumed" if begun else "begun anew") + ", the same bytes at the end", False, ""

    def _moments(self, rng: np.random.Generator) -> Iterator[float]:
        yield float(rng.uniform(0.9 * self.begins, self.seconds))
        while rng.random() < AGAIN:
            yield float(rng.uniform(0.9 * self.begins, self.seconds))

    def _go_on(self, out: Path) -> subprocess.Popen[str]:
        """The run in `out` from where it stands."""
        if (out / "config.json").exists():
            return _start("--resume", str(out), "--quiet", "--checkpoint-every", "0.1")
        return _start(self.folder / "data.h5", "--out", str(out), "--overwrite")


def _start(*arguments: str | Path) -> subprocess.Popen[str]:
    options = () if "--resume" in arguments else OPTIONS
    command = [sys.executable, "-m", "vaefit.cli", "train", *map(str, arguments), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
