"""Options of the command in the words of Python, for the errors that a Python caller reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from .errors import VaefitError
from .recipe import Recipe

P = ParamSpec("P")
R = TypeVar("R")

_DROPPED = re.compile(
    r", as by --model-arg(?=,)| with --batch-seed or --indices| instead of --weights-file| \(without --weights-file\)"
)
_OPTION = re.compile(r"(?<![\w-])--(no-)?([a-z][a-z-]*)(?: (-?\d(?:[\d.,e+-]*\d)?|[a-z_]+(?=[.,;]? |[.,;]?$)))?")
_NOT_VALUES = ("and", "or", "where", "too", "is", "in", "with", "to", "for", "both", "on", "at")
_OTHER = {
    "batch_size": "a batch of {} grids",
    "latent_dim": "latent_dim={} in the model",
    "device": "model.to({})",
    "recipe": "recipe=RECIPES[{}]",
}


def speaks_python(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: the errors that leave the function name arguments and fields of `Recipe`, not options."""

    @wraps(function)
    def call(*args: P.args, **named: P.kwargs) -> R:
        try:
            return function(*args, **named)
        except VaefitError as error:
            error.args = tuple(map(python_words, (error.what, error.where, error.got, error.do)))
            error.what, error.where, error.got, error.do = error.args
            raise

    return call


def python_words(text: str, own_init: bool = False) -> str:
    """Return a text with `--lr 0.1` as `recipe=Recipe(lr=0.1)`; with `own_init` the recipe keeps the model's own."""
    found = _OPTION.sub(_translated, _DROPPED.sub("", text)).replace(") recipe=Recipe(", ", ")
    return found.replace("recipe=Recipe(", "recipe=Recipe(init=None, ") if own_init and "init=" not in found else found


def _translated(match: re.Match[str]) -> str:
    no, name, value = match[1], match[2].replace("-", "_").replace("optimiser", "optimizer"), match[3]
    rest = ""
    if value in _NOT_VALUES:
        value, rest = None, f" {value}"
    if no or value is None:
        written = "False" if no else None
    elif value[-1].isdigit():
        written = f"({value.replace(',', ', ')})" if "," in value else value
    else:
        written = repr(value)
    if written is None:
        return name + rest
    if name == "weights" and value == "global":
        return "weights=None"
    if name == "beta_ramp":
        written = f"BetaRamp{written}"
    if name in Recipe.__dataclass_fields__:
        return f"recipe=Recipe({name}={written})"
    return _OTHER.get(name, name + "={}").format(written)
