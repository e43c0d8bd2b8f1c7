"""Commands as processes of a torchrun job: join the job, decide which process prints, find the run to resume."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vaefit.vae.distributed.launch import Launch

if TYPE_CHECKING:
    import typer

    from vaefit.vae.distributed.process_group import ProcessGroup

MAX_TIMEOUT = 30 * 86400
"""Longest `--rank-timeout` in seconds."""
COMMANDS = ("weights", "train")
"""Commands that several processes can share."""
MAY_DIFFER = ("as_json", "as_csv", "quiet", "verbose", "cache_dir", "workers", "rank_timeout")
"""Parameters that each rank may have of its own; only rank 0 prints."""


@contextmanager
def joined_ranks(ctx: typer.Context) -> Iterator[ProcessGroup | None]:
    """Context manager: join the job of this process; None, and no import of torch, for a process without a job.

    All ranks must have been started with the same command and the same options.
    """
    from vaefit.cache.errors import require  # with numpy, for which no help text waits

    timeout = ctx.params["rank_timeout"]
    require(0 < timeout <= MAX_TIMEOUT, "--rank-timeout", timeout, f"seconds above 0, up to {MAX_TIMEOUT:,}")
    launch = Launch.from_environment()
    if launch is None:
        yield None
        return
    from vaefit.vae.distributed.process_group import joined

    options = {
        parameter.opts[0] if parameter.param_type_name == "option" else "DATA": _text(
            str(parameter.name), ctx.params.get(str(parameter.name))
        )
        for parameter in ctx.command.params
        if parameter.name not in MAY_DIFFER
    }
    with joined(launch, {"command": ctx.command_path, **options}, timeout) as job:
        yield job
    # where another rank ends first with an exit code other than 0, torchrun sends SIGTERM to this one
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _text(name: str, value: object) -> str:
    """Return the value of an option for a message, with the digest of a file that every rank reads."""
    from hashlib import sha256

    from vaefit.cache.regular_file import read_regular

    if value is None:
        return "nothing"
    text = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    file = text.rpartition(":")[0] if name == "model" else text if name == "weights_file" else ""
    with suppress(OSError):  # a package, or no file: the command gives the error
        text += f" with sha256 {sha256(read_regular(Path(file), 1 << 26)).hexdigest()}" if file else ""
    return text


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
