"""The command line: `vaefit-cli`."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main() -> None:
    """Run `vaefit-cli` with the arguments of the process and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run `vaefit-cli` with `arguments`; return 0 passed, 1 failed, 2 usage, 3 could not run, 130 Ctrl-C."""
    import typer

    from .app import app
    from .failure import INTERRUPTED, Failure

    # typer carries its own click in newer versions; reached through it, the class is the right one in all of them
    usage_error: type[Exception] = typer.BadParameter.__bases__[0]
    as_json = "--json" in arguments
    try:
        code = typer.main.get_command(app).main(args=list(arguments), prog_name="vaefit-cli", standalone_mode=False)
    except usage_error as error:
        return Failure.of_usage(error, arguments).report(as_json)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except (ValueError, OSError, MemoryError) as error:
        failure = Failure.of(error)
        if failure is None:
            raise  # not an answer to anything the user did: a mistake of ours, and the traceback is wanted
        return failure.report(as_json)
    # newer versions of typer turn Ctrl-C into this code themselves
    if code == INTERRUPTED:
        return Failure.interrupted().report(as_json)
    return code if isinstance(code, int) else 0
