"""Commands as processes of a torchrun job: join the job, decide which process prints, find the run to resume."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vaefit.vae.distributed.launch import Launch

if TYPE_CHECKING:
    from vaefit.vae.distributed.process_group import ProcessGroup

COMMANDS = ("weights", "train")
"""Commands that several processes can share."""


@contextmanager
def joined_ranks() -> Iterator[ProcessGroup | None]:
    """Context manager: join the job of this process; None, and no import of torch, for a process without a job."""
    launch = Launch.from_environment()
    if launch is None:
        yield None
        return
    from vaefit.vae.distributed.process_group import joined

    with joined(launch) as job:
        yield job
    # where another rank ends first with an exit code other than 0, torchrun sends SIGTERM to this one
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def prints() -> bool:
    """Return True where this process prints results: only rank 0 of a job does; every rank prints errors."""
    try:
        launch = Launch.from_environment()
    except ValueError:  # the command raises it again and reports it
        return True
    return launch is None or launch.rank == 0


def restarted(out: Path | None) -> Path | None:
    """Return the run to resume where torchrun restarts the job after a lost rank; None where there is none."""
    launch = Launch.from_environment()
    if launch is None or launch.restarts == 0 or out is None or not (out / "config.json").is_file():
        return None
    from vaefit.vae.run_folder.reader import read_json

    # the folder may hold a run of another job, which must not be resumed
    return out if read_json(out, "config.json").get("job") == launch.job else None
