"""Several commands at once in one run folder: one writes, the others exit 3, and all files are of one run."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from tests.fault_injection.commands import Ended, Started
from tests.fault_injection.tally import Tally

CHECK = ("--batch-size", "4", "--iterations", "3", "--latent-dim", "4", "--threads", "1", "--lr", "0.01")
TRAIN = ("--batch-size", "8", "--epochs", "2", "--latent-dim", "4", "--threads", "1", "--lr", "0.01")
KINDS = ("overfit", "train", "overfit --overwrite", "resume", "resume beside train")
REFUSED = ("another process writes in this run folder", "the run folder is not empty")
COMPARED = ("metrics.csv", "model.safetensors")


def rivals(rounds: int, seed: int) -> Tally:
    """Start two to four commands at once in one folder, so many times; each has a seed of its own."""
    tally = Tally("rivals", f"{rounds} rounds of 2 to 4 processes in one run folder, seed {seed}")
    rng = np.random.default_rng([seed, 11])
    with tempfile.TemporaryDirectory() as folder:
        scene = _Scene(Path(folder))
        for number, kind in zip(range(rounds), itertools.cycle(KINDS)):
            place = scene.folder / f"{number}"
            words = scene.round(kind, int(rng.integers(2, 5)), place, rng)
            tally.add(f"{kind}: {'one run' if not words else words[0]}", bool(words), "; ".join(words))
            shutil.rmtree(place)
        tally.figures["processes"] = scene.processes
        tally.figures["winners"] = scene.winners
    return tally.done()


class _Scene:
    """A dataset, what each seed gives alone, and a training run that was killed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data, self.processes, self.winners = folder, folder / "data.h5", 0, 0
        os.environ["XDG_CACHE_HOME"] = str(folder / "home")
        cells = np.random.default_rng(3).integers(0, 4, (64, 6, 6), dtype=np.uint8)
        with h5py.File(self.data, "w") as handle:
            handle["grids"] = cells
        self.alone: dict[tuple[str, int], list[bytes]] = {}
        for command, number in itertools.product(("overfit", "train"), range(4)):
            out = folder / f"{command} {number}"
            ended = self.start(command, number, out, folder).ended()
            if ended.code not in (0, 1):
                raise RuntimeError(f"the run failed alone: {ended.err}")
            self.alone[command, number] = [(out / name).read_bytes() for name in COMPARED]
        self.cut = folder / "cut"
        cut_off(self.start("train", 0, self.cut, folder, "--checkpoint-every", "0"), self.cut)

    def start(self, command: str, number: int, out: Path, place: Path, *more: str) -> Started:
        """Start a command with the seed of its number; its output goes to a folder in `place`."""
        log = place / f"log{number}"
        log.mkdir(exist_ok=True)
        if command == "resume":
            line = ["train", "--resume", str(out)]
        else:
            options = CHECK if command == "overfit" else TRAIN
            line = [command, str(self.data), *options, "--seed", str(number), "--out", str(out)]
        return Started([*line, *more, "--json", "--quiet"], log)

    def round(self, kind: str, processes: int, place: Path, rng: np.random.Generator) -> list[str]:
        """Run one round; return what was wrong."""
        place.mkdir()
        out, command = place / "run", kind.split()[0]
        self.processes += processes
        if kind == "resume":
            shutil.copytree(self.cut, out)
        started = []
        for number in range(processes):
            beside = kind == "resume beside train" and number == 0
            more = ("--overwrite",) if "--overwrite" in kind else ()
            started.append(self.start("train" if beside else command, number, out, place, *more))
            if beside:
                while not (out / "config.json").exists():
                    time.sleep(0.002)
            time.sleep(float(rng.choice([0.0, 0.0, rng.uniform(0, 0.1)])))
        ended = [process.ended() for process in started]
        won = [number for number, found in enumerate(ended) if found.code in (0, 1)]
        self.winners += len(won)
        wrong = [f"process {n}: {found.fault}: {found.last}" for n, found in enumerate(ended) if found.fault]
        wrong += [f"process {n}: {f.last}" for n, f in enumerate(ended) if f.code == 3 and not _refused(f)]
        # a later process may replace a run that has ended, or find that there is nothing left to resume
        if not won or (len(won) > 1 and kind in ("overfit", "train")):
            wrong.append(f"{len(won)} winners")
        seeds = {0} if command == "resume" else set(won)
        files = [(out / name).read_bytes() if (out / name).exists() else b"" for name in COMPARED]
        of_a_run = "train" if command == "resume" else command
        if not any(files == self.alone[of_a_run, n] for n in seeds):
            wrong.append("files of no winner")
        result = json.loads((out / "result.json").read_text())
        if all(json.loads(ended[n].out) != result for n in won):
            wrong.append("a result of no winner")
        if json.loads((out / "config.json").read_text())["settings"]["seed"] not in seeds:
            wrong.append("the config of no winner")
        left = [file.name for file in out.rglob("*") if file.name.startswith(".")]
        return wrong + [f"left {', '.join(left)}"] * bool(left)


def cut_off(run: Started, out: Path) -> None:
    """Kill a training run that has two checkpoints."""
    while len(list(out.glob("checkpoints/step-*.safetensors"))) < 2:
        time.sleep(0.002)
    run.kill()
    run.ended()


def _refused(ended: Ended) -> bool:
    return any(words in ended.out + ended.err for words in REFUSED)
