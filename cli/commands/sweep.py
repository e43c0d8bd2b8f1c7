"""`vaefit-cli sweep`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..options.parameters import OutputOptions, option
from ..options.settings import overfit_settings

if TYPE_CHECKING:
    from vaefit.vae.sweep.plan import Knob, Plan

PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True}
"""Context settings: the sweep passes options that it does not have to `overfit`."""
LISTS = ("indices", "betas", "beta-ramp")
"""Options with commas inside a value; semicolons separate their values."""
NOT_VARIED = ("out", "overwrite", "json", "quiet", "help")
"""Options of `overfit` that are the same for all runs."""


def sweep(
    ctx: typer.Context,
    vary: list[str] | None = option(
        None, "An option of `overfit` and its values; may be repeated.", metavar="OPTION=V1,V2,..."
    ),
    seeds: int = option(3, "Runs of each setting; each run adds one to --seed and --batch-seed."),
    out: Path | None = option(None, "Folder of the sweep (./runs/sweep-DATE-TIME)."),
    overwrite: bool = option(False, "Replace the sweep in a folder that is not empty.", "--overwrite"),
    output: OutputOptions = OutputOptions(),
) -> None:
    """Run the check over a grid of settings and seeds, and show which option made the difference.

    The sweep also takes DATA and every option of `overfit`, for all runs. Semicolons separate values that contain
    commas: --vary "betas=0.9,0.95;0.9,0.999".
    """
    terminal = output.terminal()
    plan = _plan(ctx, vary or [], seeds, terminal.note)

    from vaefit.vae.runs.overfit_run import Watcher
    from vaefit.vae.sweep.run import run_sweep

    from ..errors import InterruptedRunError
    from ..output.run_tables import print_sweep

    terminal.note(f"{plan.runs} runs, {seeds} of each setting")
    with terminal.progress() as progress:

        def watch_run(place: int, values: tuple[str, ...], seed: int) -> Watcher:
            words = [f"{knob.name}={value}" for knob, value in zip(plan.knobs, values, strict=True)]
            run = " ".join([*words, f"seed {seed}"])
            return Watcher(progress.counting, step=lambda record: progress.sweeping(record, place, plan.runs, run))

        outcome = run_sweep(plan, out, overwrite, watch_run)
    print_sweep(terminal, outcome)
    terminal.json(outcome.json())
    if outcome.interrupted:
        raise InterruptedRunError


def _plan(ctx: typer.Context, vary: list[str], seeds: int, announce: Callable[[str], None]) -> Plan:
    """Return the plan of the command line; `overfit` parses every combination before the first run."""
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
        settings.append(Setting(values, overfit_settings(parsed, announce)))
    return Plan(knobs, tuple(settings), seeds)


def _names(parameter: Any) -> list[str]:
    """Return the names of a parameter in `--vary`: its long options without the dashes, or `data`."""
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
    """Return the words that set a knob to a value on the command line of `overfit`."""
    if parameter.param_type_name == "argument":
        return [value]
    if not parameter.is_flag:
        return [f"--{name}", value]
    if value not in ("true", "false"):
        raise typer.BadParameter(f"--{name} is a switch: use true and false, not {value!r}", param_hint="--vary")
    if value == "true":
        return [f"--{name}"]
    return list(parameter.secondary_opts[:1])
