"""Output form of a model: the places of logits, mu and logvar."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

Path = tuple[Any, ...]
"""Keys that lead to a part, from the outside in; empty for an output that is the part itself."""
Spread = Literal["logvar", "log std", "std", "variance"]

LOGITS_NAMES = ("logits", "reconstruction", "recon", "recon_x", "x_recon", "x_hat", "output")
MU_NAMES = ("mu", "mean", "loc")
SPREAD_NAMES: dict[Spread, tuple[str, ...]] = {
    "logvar": ("logvar", "logvariance", "logsigma2", "logsigmasq"),
    "log std": ("logstd", "logstddev", "logsigma", "logscale"),
    "std": ("std", "stddev", "sigma", "scale"),
    "variance": ("var", "variance", "sigma2", "sigmasq"),
}
_LOGVAR: dict[Spread, Callable[[Tensor], Tensor]] = {
    "logvar": lambda spread: spread,
    "log std": lambda spread: 2 * spread,
    "std": lambda spread: 2 * spread.log(),
    "variance": torch.log,
}
_OF_LATENT = ("z", "q", "latent", "posterior", "encoder")
"""Words of a name that say nothing about which part it is."""
MANY = 16
"""Dimensions of a latent from which a spread that is positive everywhere is no logvar of a new model."""
DEPTH = 3
"""Most keys of a path: an output may hold itself."""


@dataclass(frozen=True)
class OutputForm:
    """Places of the parts of a model's output, found by trying one batch."""

    kind: str
    """Type of the whole output, in words."""
    logits: Path = ()
    latent: tuple[Path, Path] | None = None
    """Places of mu and of the spread; None where they were not found."""
    spread: Spread = "logvar"

    def read(self, output: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return (logits, mu, logvar) of an output of this form."""
        logits = _part(output, self.logits)
        if self.latent is None:
            return logits, None, None
        mu, spread = (_part(output, path) for path in self.latent)
        return logits, mu, _LOGVAR[self.spread](spread)

    def __str__(self) -> str:
        if (self.logits, self.latent, self.spread) == ((0,), ((1,), (2,)), "logvar"):
            return "(logits, mu, logvar)"
        logits = f"logits at {_named(self.logits)} of a {self.kind}" if self.logits else "logits"
        if self.latent is None:
            return f"{logits}, no mu and logvar"
        mu, spread = map(_named, self.latent)
        return f"{logits}, mu at {mu} and {self.spread} at {spread}"


def output_form(output: Any, again: Any, inputs: Tensor, shape: tuple[int, int, int]) -> OutputForm | None:
    """Find the parts in the output for a batch of `shape` (B, H, W); None where no part is (B, C, H, W) floats.

    A tensor is the logits. In anything else the parts are found by their names; the spread of the latent may be a
    logvar, a standard deviation, a variance, the logarithm of one, or the scale of a `torch.distributions.Normal`. In a
    tuple or list without names the logits are the first tensor of their shape that is not the input, and mu and logvar
    are two tensors of equal shape, in this order. Of three such tensors one is z: it differs from call to call or
    equals mu.

    Args:
        output: what the model returned for `inputs` in evaluation mode.
        again: what it returned for the same inputs at a second call.
    """
    if isinstance(output, Tensor):
        return OutputForm("tensor") if _is_logits(output, shape) else None
    parts = {path: part for path, part in named_parts(output).items() if part.is_floating_point()}
    learnt = {path: part for path, part in parts.items() if not _is_input(part, inputs)}
    fitting = [path for path, part in learnt.items() if _is_logits(part, shape)]
    fitting = fitting or [path for path, part in parts.items() if _is_logits(part, shape)]
    if not fitting:
        return None
    names = [name for name in LOGITS_NAMES if name in [path[-1] for path in fitting]]
    logits = next((path for name in names for path in fitting if path[-1] == name), fitting[0])
    kind, batch = type(output).__name__, shape[0]
    others = {p: t for p, t in learnt.items() if p != logits and t.dim() > 1 and t.shape[0] == batch}
    named = _named_latents(others)
    if named:
        return OutputForm(kind, logits, *named[0]) if len(named) == 1 else OutputForm(kind, logits)
    return OutputForm(kind, logits, _unnamed_latent(others, again) if isinstance(output, (tuple, list)) else None)


def named_parts(output: Any, depth: int = DEPTH) -> dict[Path, Tensor]:
    """Return the tensors of an output, and of what it holds, by their path."""
    found: dict[Path, Tensor] = {}
    for key, part in _members(output).items():
        if isinstance(part, Tensor):
            found[key,] = part
        elif depth > 1:
            found.update({(key, *path): tensor for path, tensor in named_parts(part, depth - 1).items()})
    return found


def described(output: Any) -> str:
    """Return an output in words, with the shapes of its tensors."""
    if isinstance(output, Tensor):
        return f"a tensor {_shape(output)}"
    parts = ", ".join(f"{'.'.join(map(str, path))}: {_shape(part)}" for path, part in named_parts(output).items())
    return f"a {type(output).__name__} with {parts}" if parts else f"a {type(output).__name__} without tensors"


def _members(output: Any) -> Mapping[Any, Any]:
    """Return what an output holds, by index or name."""
    if isinstance(output, Mapping):
        return output
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return dict(zip(output._fields, output, strict=True))
    if isinstance(output, (tuple, list)):
        return dict(enumerate(output))
    if isinstance(output, Independent):
        return _members(output.base_dist)
    if isinstance(output, Distribution):  # of another distribution, the divergence would be another
        return {"loc": output.loc, "scale": output.scale} if isinstance(output, Normal) else {}
    if is_dataclass(output):
        return {field.name: getattr(output, field.name) for field in fields(output)}
    return {} if isinstance(output, (nn.Module, type)) else getattr(output, "__dict__", {})


def _named_latents(parts: Mapping[Path, Tensor]) -> list[tuple[tuple[Path, Path], Spread]]:
    """Return every pair of mu and spread with known names and equal shapes that lie side by side; none of a prior."""
    found = []
    for mu in parts:
        beside = [p for p in parts if p[:-1] == mu[:-1] and p != mu and parts[p].shape == parts[mu].shape]
        known = ((kind, p) for kind, names in SPREAD_NAMES.items() for p in beside if _name(p) in names)
        kind, spread = next(known, (None, None))
        if _name(mu) in MU_NAMES and "prior" not in mu and kind is not None and spread is not None:
            found.append(((mu, spread), kind))
    return found


def _unnamed_latent(parts: Mapping[Path, Tensor], again: Any) -> tuple[Path, Path] | None:
    """Return the places of mu and logvar, the only two parts of equal shape beside z; None where that is not clear."""
    alike = [[p for p in parts if parts[p].shape == shape] for shape in {t.shape for t in parts.values()}]
    several = [paths for paths in alike if len(paths) > 1]
    if len(several) != 1:
        return None
    same = [p for p in several[0] if _near(parts[p], _part(again, p))]  # z may be sampled in evaluation mode too
    if len(same) == 3:
        # z that equals mu in evaluation mode: mu is the one before logvar
        others = [p for p in same if sum(_near(parts[p], parts[q]) for q in same) == 1]
        place = same.index(others[0]) if len(others) == 1 else 0
        same = same[place - 1 : place + 1] if place else []
    if len(same) != 2:
        return None
    mu, logvar = (parts[p] for p in same)
    is_z = _near(mu, logvar) and bool(mu.any())
    # or a variance: which one, only a name can say; the bias of a few logvars may be positive by chance
    is_std = logvar[0].numel() >= MANY and bool((logvar > 0).all())
    return None if is_z or is_std else (same[0], same[1])


def _near(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-3, atol=1e-6, equal_nan=True)


def _name(path: Path) -> str:
    """Return the last key without the words that every latent may have: `z_log_var` becomes `logvar`."""
    return "".join(word for word in str(path[-1]).lower().split("_") if word not in _OF_LATENT)


def _named(path: Path) -> str:
    return repr(path[0] if len(path) == 1 else ".".join(map(str, path)))


def _shape(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _is_logits(tensor: Tensor, shape: tuple[int, int, int]) -> bool:
    return tensor.dim() == 4 and (tensor.shape[0], *tensor.shape[2:]) == shape and tensor.is_floating_point()


def _is_input(part: Tensor, inputs: Tensor) -> bool:
    """Return True for the inputs themselves, and for a one-hot form that the model made of them."""
    if part.shape == inputs.shape and torch.equal(part, inputs.to(part.dtype)):
        return True
    return part.dim() == 4 and bool(part.any()) and bool(((part == 0) | (part == 1)).all())


def _part(output: Any, path: Path) -> Tensor:
    for key in path:
        output = _members(output)[key]
    assert isinstance(output, Tensor)  # the form was found on the same model
    return output
