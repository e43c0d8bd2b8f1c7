"""Whether a command is one process of a job, and what that means for what it prints."""

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
"""Those that several processes can share."""


@contextmanager
def joined_ranks() -> Iterator[ProcessGroup | None]:
    """The job that this process is of, joined; None, and nothing imported, for a process by itself."""
    launch = Launch.from_environment()
    if launch is None:
        yield None
        return
    from vaefit.vae.distributed.process_group import joined

    with joined(launch) as job:
        yield job
    # another rank may end first, by an exit code at which torchrun ends the others
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def prints() -> bool:
    """Results are printed by one process of a job; errors by all."""
    try:
        launch = Launch.from_environment()
    except ValueError:  # which the command will meet
        return True
    return launch is None or launch.rank == 0


def restarted(out: Path | None) -> Path | None:
    """The run to go on with, where torchrun begins the job anew after it has lost a rank; None where there is none."""
    launch = Launch.from_environment()
    if launch is None or launch.restarts == 0 or out is None or not (out / "config.json").is_file():
        return None
    from vaefit.vae.run_folder.reader import read_json

    # what lies there may be another run, which is to be overwritten or should not be
    return out if read_json(out, "config.json").get("job") == launch.job else None
