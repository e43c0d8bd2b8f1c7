"""Options that several commands take, and values of several numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[
    str | None,
    typer.Argument(help="file.h5, file.h5:/dataset, or 'train-*.h5' for shards.", show_default="the embedded corpus"),
]
DataOrShards = Annotated[
    list[str] | None,
    typer.Argument(
        help="file.h5, file.h5:/dataset, or 'train-*.h5' for shards; one or more.",
        show_default="the embedded corpus",
    ),
]
Classes = Annotated[int | None, typer.Option(help="C, where the dataset does not say.")]
IgnoreIndex = Annotated[int | None, typer.Option(help="Label of cells that count nowhere.")]
CacheDir = Annotated[
    Path | None, typer.Option(readable=False, help="Folder for the cached weights file, before others.")
]
EffectiveB = Annotated[float | None, typer.Option(help="b of the effective scheme (1 - 1/N).")]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")]
Backend = Annotated[
    str, typer.Option(metavar="auto|triton|compiled|eager|reference", help="Implementation of the loss.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.")]


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
