"""Parameters that several commands take, and the groups of options that `overfit` and `train` share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from ..output.terminal import Terminal


def option(default: Any, text: str, *names: str, metavar: str | None = None, default_text: str | None = None) -> Any:
    """Return an option of typer: its default value, help text and names; `default_text` describes the default value.

    In an Annotated type the default value is `...`: each command gives its own.
    """
    # only a Path has the last two: it may be unreadable, and typer before 0.29 needs `path_type`
    kind: Any = Path
    shown = default_text or True
    return typer.Option(default, *names, help=text, metavar=metavar, show_default=shown, readable=False, path_type=kind)


DATA_FORMS = "file.h5, file.h5:/dataset, or 'train-*.h5' for shards"
Data = Annotated[str | None, typer.Argument(help=f"{DATA_FORMS}.", show_default="the embedded corpus")]
DataOrShards = Annotated[
    list[str] | None, typer.Argument(help=f"{DATA_FORMS}; one or more.", show_default="the embedded corpus")
]
Run = Annotated[Path, typer.Argument(readable=False, help="The folder of a run of `train` or `overfit`.")]
Classes = Annotated[int | None, option(..., "Number of classes, if the dataset does not store it.")]
IgnoreIndex = Annotated[int | None, option(..., "Label of the cells that are ignored.")]
CacheDir = Annotated[Path | None, option(..., "Folder that is searched first for the cached weights file.")]
_SCHEMES = "sqrt_inverse|inverse|balanced|effective|none"
_SCHEME = option(..., "Formula that turns counts into weights.", metavar=_SCHEMES)
Scheme = Annotated[str, _SCHEME]
EffectiveB = Annotated[float | None, option(..., "b of the effective scheme (1 - 1/N).")]
Device = Annotated[str, option(..., "Device to compute on.", metavar="auto|cpu|cuda")]
Backend = Annotated[str, option(..., "Implementation of the loss.", metavar="auto|triton|compiled|eager|reference")]
Threads = Annotated[int | None, option(..., "CPU threads; a small batch uses one.")]
Overwrite = Annotated[bool, option(..., "Replace the run in a folder that is not empty.", "--overwrite")]
RankTimeout = Annotated[float, option(..., "Seconds to wait for the start of the other ranks of a job.")]
AsJson = Annotated[bool, option(..., "Print one JSON object and nothing else.", "--json")]
Quiet = Annotated[bool, option(..., "Print no progress and no notes.", "--quiet", "-q")]
Verbose = Annotated[bool, option(..., "If your network raises, print its traceback.", "--verbose", "-v")]


@dataclass(frozen=True)
class OutputOptions:
    """Options of what a command prints."""

    as_json: AsJson = False
    quiet: Quiet = False

    def terminal(self) -> Terminal:
        """Return the terminal that prints by these options; a help text does not wait for its import."""
        from ..output.terminal import Terminal

        return Terminal(self.as_json, self.quiet)


@dataclass(frozen=True)
class ObjectiveOptions:
    """Options of the class weights and of the loss."""

    scheme: Annotated[str | None, _SCHEME] = None
    smooth: float | None = option(None, "Number added to each count (1).")
    effective_b: EffectiveB = None
    weights_power: float | None = option(
        None, "Power that the weights are raised to; below 1 softens them (1).", metavar="POWER"
    )
    weights_file: Path | None = option(None, "File of your own class weights: .json, .npy or .safetensors.")
    no_scan: bool = option(False, "Use cached counts only; exit 3 where there are none.", "--no-scan")
    gamma: float | None = option(None, "Focusing exponent of the focal loss (2).")
    reduction: str | None = option(None, "Loss per grid, per cell, or their sum.", metavar="batch|mean|sum")
    beta: float | None = option(None, "Weight of the KL term (0).")


@dataclass(frozen=True)
class FitOptions:
    """Options of the latent vector, the initialisation, the optimizer and the learning rate."""

    free_bits: float | None = option(None, "KL per latent dimension that costs nothing (0).", metavar="NATS")
    z: str | None = option(None, "Latent vector that the decoder gets.", metavar="mu|sample")
    init: str | None = option(None, "Initialisation of the network.", metavar="kaiming|rescaled|default")
    optimizer: str | None = option(
        None, "Optimizer; muon leaves the biases to Adam.", "--optimizer", "--optimiser", metavar="adam|muon"
    )
    lr: str | None = option(None, "Learning rate, on Adam's scale; auto tries six.", metavar="RATE|auto")
    betas: str | None = option(None, "Betas of Adam; B1 is also the momentum of Muon.", metavar="B1,B2")
    warmup: int | None = option(None, "Steps of linear warm-up.")
    lr_decay: str | None = option(None, "Decay of the learning rate.", metavar="isqrt|none|cosine")
    decay_steps: int | None = option(None, "Steps after which isqrt has lowered the rate by 30 %.")
    clip: float | None = option(None, "Largest gradient norm; 0 does not clip.")


@dataclass(frozen=True)
class RunOptions:
    """Options of the network, the counting and the machine."""

    latent_dim: int | None = option(None, "Dimensions of the latent vector (32).")
    model: str | None = option(
        None, "Your own network: package.module:Name or path/to/file.py:Name.", metavar="WHERE:NAME"
    )
    model_arg: list[str] | None = option(
        None, "Argument of the network's constructor; may be repeated.", metavar="KEY=VALUE"
    )
    classes: Classes = None
    ignore_index: IgnoreIndex = None
    cache_dir: CacheDir = None
    device: Device = "auto"
    backend: Backend = "auto"
    threads: Threads = None
    verbose: Verbose = False


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a command whose type is a group by one parameter for each field, in its place.

    typer reads the parameters from the signature; the command is called with the groups as the function declares them.
    """
    groups: dict[str, Any] = {}
    parameters = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        group = parameter.annotation
        if not is_dataclass(group):
            parameters.append(parameter)
            continue
        groups[parameter.name] = group
        hints = get_type_hints(group, include_extras=True)
        parameters += [
            inspect.Parameter(field.name, parameter.kind, default=field.default, annotation=hints[field.name])
            for field in fields(group)
        ]

    @functools.wraps(command)
    def call(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    vars(call)["__signature__"] = inspect.Signature(parameters)
    return call


def numbers(option: str, text: str | None, count: int | None, whole: bool = False) -> tuple[float, ...] | None:
    """Read `1,2,3` as `count` numbers (any number of them for None); a usage error where it is something else."""
    if text is None:
        return None
    try:
        values = tuple((int if whole else float)(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or count not in (None, len(values)):
        kind = "whole numbers" if whole else "numbers"
        wanted = kind if count is None else f"{count} {kind}"
        raise typer.BadParameter(f"{text!r} is not {wanted} separated by commas", param_hint=option)
    return values
