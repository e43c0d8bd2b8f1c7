"""Application of typer with all commands."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from vaefit.vae.distributed.launch import Launch

from .commands.bench import bench
from .commands.data import data
from .commands.doctor import doctor
from .commands.evaluate import evaluate
from .commands.overfit import overfit
from .commands.sample import sample
from .commands.show import compare, show
from .commands.sweep import PASS_ON, sweep
from .commands.train import train
from .commands.weights import weights
from .options.parameters import with_groups
from .torchrun import COMMANDS

app = typer.Typer(
    help="Can this model, with this loss and these class weights, memorise one batch? And if not, why not?",
    epilog="Exit codes: 0 passed, 1 the check failed, 2 wrong command line, 3 it could not run, 130 Ctrl-C.",
    rich_markup_mode=None,  # help in plain text starts twice as fast
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> None:
    if requested:
        from vaefit.vae.environment.hardware import vaefit_version

        typer.echo(f"vaefit {vaefit_version()}")
        raise typer.Exit


@app.callback()
def _options(
    ctx: typer.Context,
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if Launch.from_environment() is None:
        return
    # before torch is imported: where a connection is lost, it prints stack traces in C++
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if ctx.invoked_subcommand not in COMMANDS:
        do = f"start it without torchrun, which is for {' and '.join(COMMANDS)}"
        raise typer.BadParameter(f"{ctx.invoked_subcommand} runs in one process; {do}")


for command in (overfit, weights, train, evaluate, sample, sweep, show, compare, doctor):
    app.command(context_settings=PASS_ON if command is sweep else None)(with_groups(command))
app.add_typer(data, name="data")
app.add_typer(bench, name="bench")
