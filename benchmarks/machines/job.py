"""Jobs of two ranks on this machine: what their collectives take, and how much faster they count than one process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from vaefit.vae.errors import RunError

from ..counting.scaling import NOT_RACY_SECONDS
from .figures import JobFigures, Measured, SpeedUp
from .rank import Exchange, Exchanged

SECONDS = 120
"""A job that takes longer hangs."""
ROUND_SHARDS = 256


def torchrun(ranks: int, module: str, *arguments: str) -> list[str]:
    """The command that runs a module as so many ranks, on a free port."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return [*run, "-m", module, *arguments]


def measure_job(
    folder: Path, shard: Path, parameters: int, objective_bytes: int, rounds: int, repeats: int
) -> JobFigures:
    """Start as many jobs as there are rounds; each exchanges all there is to exchange so many times."""
    found = []
    for number in range(rounds):
        answer = folder / f"exchanged-{number}.json"
        what = Exchange(str(answer), time.time(), str(shard), ROUND_SHARDS, parameters, objective_bytes, repeats)
        output_of(torchrun(2, "vaefit.benchmarks.machines.rank", json.dumps(asdict(what))))
        found.append(Exchanged(**json.loads(answer.read_text())))
    return job_figures(found, ROUND_SHARDS)


def job_figures(found: Sequence[Exchanged], shards: int) -> JobFigures:
    """Of the repeats of all jobs."""

    def of(name: str) -> Measured:
        return Measured.of([sample for one in found for sample in getattr(one, name)])

    return JobFigures(
        join=Measured.of([one.join for one in found]),
        shards=shards,
        meet=of("meet"),
        add=of("add"),
        gather=of("gather"),
        report_bytes=found[0].report_bytes,
        gradients=of("gradients"),
        objective=of("objective"),
    )


def measure_speed_up(shard: Path, copies: int, folder: Path, rounds: int) -> SpeedUp:
    """Count copies of a shard by one process and by two ranks, in turns; RunError where they count differently."""
    folder.mkdir()
    for number in range(copies):
        shutil.copyfile(shard, folder / f"part-{number:02}.h5")
    time.sleep(NOT_RACY_SECONDS)  # what was just written is read three times
    words = ["weights", str(folder / "part-*.h5"), "--threads", "1", "--json", "--cache-dir"]
    seconds: dict[int, list[float]] = {1: [], 2: []}
    counts = []
    for number in range(rounds):
        for ranks, taken in seconds.items():
            cache = str(folder / f"cache-{number}-{ranks}")
            alone = [sys.executable, "-m", "vaefit.cli", *words, cache]
            answer = json.loads(output_of(alone if ranks == 1 else torchrun(ranks, "vaefit.cli", *words, cache)))
            taken.append(float(answer["seconds"]))
            counts.append(answer["counts"])
    if any(one != counts[0] for one in counts):
        raise RunError("one process and two ranks count differently", str(folder))
    times = [one / two for one, two in zip(*seconds.values(), strict=True)]
    return SpeedUp(sum(counts[0]), copies, Measured.of(seconds[1]), Measured.of(seconds[2]), Measured.of(times))


def output_of(command: Sequence[str]) -> str:
    """What a command prints on stdout; RunError where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        got = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise RunError("a measured process failed", " ".join(command[1:5]), got)
    return done.stdout
