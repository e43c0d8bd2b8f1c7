"""Entry point of `vaefit-cli`: run a command and return its exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vaefit.vae.environment.command_line import typed

from .errors import INTERRUPTED, Failure, InterruptedRunError, StoppedError
from .output.streams import prepare_streams
from .torchrun import prints


def main() -> None:
    """Run `vaefit-cli` with the arguments of the process and exit with its code."""
    prepare_streams()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run `vaefit-cli` with `arguments`; return 0 passed, 1 failed, 2 usage, 3 could not run, 130 Ctrl-C.

    Without arguments it prints the help and returns 0.
    """
    as_json = "--json" in arguments and prints()
    verbose = bool({"-v", "--verbose"} & set(arguments))
    if verbose or "logging" in sys.modules:  # no help text waits for it
        import logging

        logging.getLogger("vaefit").setLevel(logging.DEBUG if verbose else logging.WARNING)
    try:
        with typed(arguments):
            outcome = _run(arguments or ["--help"])
    except KeyboardInterrupt:
        outcome = Failure.interrupted()
    return outcome.report(as_json, verbose) if isinstance(outcome, Failure) else outcome


def _run(arguments: Sequence[str]) -> int | Failure:
    import typer

    from .app import app

    # newer versions of typer bundle their own click; this is the UsageError of whichever click is in use
    usage_error: type[Exception] = typer.BadParameter.__bases__[0]
    try:
        code = typer.main.get_command(app).main(args=list(arguments), prog_name="vaefit-cli", standalone_mode=False)
    except usage_error as error:
        return Failure.from_usage_error(error, arguments)
    except typer.Abort:  # Ctrl-C in older versions of typer; newer ones return the code
        return Failure.interrupted()
    except InterruptedRunError:
        return INTERRUPTED
    except StoppedError as stopped:
        return Failure.interrupted(str(stopped))
    except Exception as error:  # exit code 1 would read as "the check failed"
        return Failure.from_error(error)
    if code == INTERRUPTED:
        return Failure.interrupted()
    return code if isinstance(code, int) else 0
