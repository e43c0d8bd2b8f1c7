"""The commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from vaefit.vae.launch import Launch

from .bench import bench
from .data import data
from .doctor import doctor
from .evaluate import evaluate
from .overfit import overfit
from .ranks import COMMANDS
from .sample import sample
from .show import compare, show
from .sweep import PASS_ON, sweep
from .train import train
from .weights import weights

app = typer.Typer(
    help="Can this model, with this loss and these class weights, memorise one batch? And if not, why not?",
    epilog="Exit codes: 0 passed, 1 the check failed, 2 wrong command line, 3 it could not run, 130 Ctrl-C.",
    no_args_is_help=True,
    rich_markup_mode=None,  # help in plain text starts twice as fast
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from vaefit.vae.version import vaefit_version

        typer.echo(f"vaefit {vaefit_version()}")
        raise typer.Exit


@app.callback()
def _options(
    ctx: typer.Context,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if ctx.invoked_subcommand not in COMMANDS and Launch.of_environment() is not None:
        do = f"start it without torchrun, which is for {' and '.join(COMMANDS)}"
        raise typer.BadParameter(f"{ctx.invoked_subcommand} runs in one process; {do}")


app.command()(overfit)
app.command()(weights)
app.command()(train)
app.command()(evaluate)
app.command()(sample)
app.command(context_settings=PASS_ON)(sweep)
app.command()(show)
app.command()(compare)
app.command()(doctor)
app.add_typer(data, name="data")
app.add_typer(bench, name="bench")
