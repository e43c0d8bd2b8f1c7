"""`vaefit-cli sweep`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options.common import AsJson, Quiet
from ..options.overfit_settings import check_settings

if TYPE_CHECKING:
    from vaefit.vae.runs.overfit_run import Watcher
    from vaefit.vae.sweep.plan import Knob, Plan
    from vaefit.vae.sweep.run import Begins

    from ..output.progress import ProgressLine

PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True}
"""What the sweep does not know goes to `overfit`, which does."""
LISTS = ("indices", "betas", "beta-ramp")
"""Options whose values hold commas themselves; their values are separated by semicolons."""
NOT_VARIED = ("out", "overwrite", "json", "quiet", "help")


def sweep(
    ctx: typer.Context,
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="OPTION=V1,V2,...", help="An option of `overfit` and its values; may be repeated."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each setting; --seed and --batch-seed rise by one a run.")] = 3,
    out: Annotated[Path | None, typer.Option(readable=False, help="The folder (./runs/sweep-DATE-TIME).")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the sweep in a folder that is not empty.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run the check over a grid of settings and seeds, and say which knob made the difference.

    Takes DATA and every option of `overfit` as well; they hold for all runs. Values that hold commas are separated by
    semicolons: --vary "betas=0.9,0.95;0.9,0.999".
    """
    from ..output.terminal import Terminal

    terminal = Terminal(as_json, quiet)
    plan = _plan(ctx, vary or [], seeds, terminal.note)

    from vaefit.vae.sweep.run import run_sweep

    from ..output.sweep_table import print_sweep

    terminal.note(f"{plan.runs} runs, {seeds} of each setting")
    with terminal.progress() as progress:
        outcome = run_sweep(plan, out, overwrite, _begins(plan, progress))
    print_sweep(terminal, outcome)
    terminal.json(outcome.json())


def _plan(ctx: typer.Context, vary: list[str], seeds: int, announce: Callable[[str], None]) -> Plan:
    """The plan that the command line means; every combination is parsed as `overfit` would, before any runs."""
    from vaefit.vae.sweep.plan import Plan, Setting

    assert ctx.parent is not None
    command: Any = ctx.parent.command
    overfit = command.commands["overfit"]
    parameters = {name: p for p in overfit.params for name in _names(p)}
    knobs = tuple(_knob(text, parameters) for text in vary)
    if len({knob.name for knob in knobs}) < len(knobs):
        raise typer.BadParameter("one option is varied twice; give all its values at once", param_hint="--vary")
    settings = []
    for values in itertools.product(*(knob.values for knob in knobs)):
        words = [_words(parameters[knob.name], knob.name, value) for knob, value in zip(knobs, values, strict=True)]
        parsed = overfit.make_context("sweep", [*ctx.args, *itertools.chain(*words)], parent=ctx.parent)
        settings.append(Setting(values, check_settings(parsed, announce)))
    return Plan(knobs, tuple(settings), seeds)


def _names(parameter: Any) -> list[str]:
    """What `--vary` calls a parameter: its long option without the dashes, or `data`."""
    if parameter.param_type_name == "argument":
        return [str(parameter.name)]
    return [option[2:] for option in parameter.opts if option.startswith("--") and option[2:] not in NOT_VARIED]


def _knob(text: str, parameters: dict[str, Any]) -> Knob:
    from vaefit.vae.sweep.plan import Knob

    name, equals, listed = text.partition("=")
    name = name.removeprefix("--")
    if not equals or not listed:
        raise typer.BadParameter(f"{text!r} is not OPTION=V1,V2", param_hint="--vary")
    if name not in parameters:
        raise typer.BadParameter(f"`overfit` has no option --{name} that can be varied", param_hint="--vary")
    values = tuple(listed.split(";" if ";" in listed or name in LISTS else ","))
    if "" in values or len(set(values)) < len(values):
        raise typer.BadParameter(f"{text!r} holds an empty value, or one twice", param_hint="--vary")
    return Knob(name, values)


def _words(parameter: Any, name: str, value: str) -> list[str]:
    """A value of a knob as it would be typed after `overfit`."""
    if parameter.param_type_name == "argument":
        return [value]
    if not parameter.is_flag:
        return [f"--{name}", value]
    if value not in ("true", "false"):
        raise typer.BadParameter(f"--{name} is a switch: use true and false, not {value!r}", param_hint="--vary")
    if value == "true":
        return [f"--{name}"]
    return list(parameter.secondary_opts[:1])


def _begins(plan: Plan, progress: ProgressLine) -> Begins:
    from vaefit.vae.runs.overfit_run import Watcher

    def begins(place: int, values: tuple[str, ...], number: int) -> Watcher:
        words = [f"{knob.name}={value}" for knob, value in zip(plan.knobs, values, strict=True)]
        what = " ".join([*words, f"seed {number}"])
        return Watcher(
            counting=progress.counting, step=lambda record: progress.sweeping(record, place, plan.runs, what)
        )

    return begins
