"""main."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .errors import INTERRUPTED, StoppedError


def main() -> None:
    """Run `vaefit-cli` with the arguments of the process and exit with its code."""
    from .output.streams import prepare_streams

    prepare_streams()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run `vaefit-cli` with `arguments`; return 0 passed, 1 failed, 2 usage, 3 could not run, 130 Ctrl-C."""
    from .torchrun import prints

    as_json = "--json" in arguments and prints()
    try:
        code = _run(arguments, as_json)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except StoppedError as stopped:
        from .errors import Failure

        return Failure.interrupted(str(stopped)).report(as_json)
    if code == INTERRUPTED:
        from .errors import Failure

        return Failure.interrupted().report(as_json)
    return code


def _run(arguments: Sequence[str], as_json: bool) -> int:
    import typer

    from .app import app
    from .errors import Failure

    # typer carries its own click in newer versions; reached through it, the class is the right one in all of them
    usage_error: type[Exception] = typer.BadParameter.__bases__[0]
    try:
        code = typer.main.get_command(app).main(args=list(arguments), prog_name="vaefit-cli", standalone_mode=False)
    except usage_error as error:
        return Failure.from_usage_error(error, arguments).report(as_json)
    except typer.Abort:  # what older versions of typer make of Ctrl-C; newer ones return the code
        return INTERRUPTED
    except StoppedError:
        raise
    except Exception as error:  # the last resort: exit code 1 would read as "the check failed"
        failure = Failure.from_error(error)
        if failure.unexpected:
            import traceback

            traceback.print_exc()
        return failure.report(as_json)
    return code if isinstance(code, int) else 0
