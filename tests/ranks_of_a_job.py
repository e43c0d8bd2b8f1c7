"""Job of several ranks: the processes that torchrun would start, forked from one that has imported everything."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.distributed import TCPStore

if TYPE_CHECKING:  # a rank does not need what it imports
    from tests.conftest import Outcome

PRELOADED = [
    "torch._dynamo",  # which DistributedDataParallel imports
    "vaefit.cli.app",
    "vaefit.vae.distributed.ddp_step",
    "vaefit.vae.report.page.training_page",
    "vaefit.vae.report.curves",
    "vaefit.vae.runs.training_run",
]
SECONDS = 120

multiprocessing.set_forkserver_preload(PRELOADED)


def run_job(
    ranks: int, *arguments: str | Path, before: Callable[[int], Any] | None = None, restarts: int = 0
) -> list[Outcome]:
    """Return the outcome of each rank of `torchrun --nproc-per-node RANKS -m vaefit.cli ARGUMENTS`.

    `before`, a function of a module, is called with the rank in its process, before the command, and may return other
    arguments for it; `restarts` is the number of times that torchrun has restarted the job.
    """
    from tests.conftest import Outcome

    words = [str(argument) for argument in arguments]
    # torchrun's agent keeps the store too, so that it outlives each rank
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=SECONDS))
    context = multiprocessing.get_context("forkserver")
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for rank in range(ranks):
            environment = {
                **os.environ,
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks),
                "MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
                "TORCHELASTIC_RESTART_COUNT": str(restarts), "OMP_NUM_THREADS": "1",
            }  # fmt: skip
            given = (words, environment, os.getcwd(), os.path.join(folder, str(rank)), rank, before)  # noqa: PTH109, PTH118
            process = context.Process(target=_rank, args=given)
            process.start()
            started.append(process)
        for process in started:
            process.join(SECONDS)
            if process.exitcode is None:
                process.kill()
                process.join()
        texts = [[Path(f"{folder}/{rank}.{kind}").read_text() for kind in ("out", "err")] for rank in range(ranks)]
    return [Outcome(process.exitcode or 0, *text) for process, text in zip(started, texts, strict=True)]


def _rank(
    words: Sequence[str],
    environment: Mapping[str, str],
    place: str,
    files: str,
    rank: int,
    before: Callable[[int], Any] | None,
) -> None:
    """Run the command as one rank, as a process of its own would."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(place)
    import torch

    from vaefit.cli.main import run
    from vaefit.vae.report import curves

    torch.set_num_threads(1)
    curves.draw_training_curves = lambda _, out: out.touch()  # which takes longer than all else
    with (
        open(f"{files}.out", "w") as out,  # noqa: PTH123
        open(f"{files}.err", "w") as err,  # noqa: PTH123
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = run((before(rank) if before is not None else None) or words)
    sys.exit(code)
