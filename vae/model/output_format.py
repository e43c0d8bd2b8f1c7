"""Output form of a model: the places of logits, mu and logvar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor

PartKey = int | str | None
"""Index or name of a part; None for an output that is the part itself."""

LOGITS_NAMES = ("logits", "reconstruction", "recon", "recon_x", "x_recon", "x_hat", "output")
MU_NAMES = ("mu", "mean", "z_mean", "mu_z")
LOGVAR_NAMES = ("logvar", "log_var", "z_logvar", "logvar_z", "z_log_var")


@dataclass(frozen=True)
class OutputForm:
    """Places of the parts of a model's output, found by trying one batch."""

    kind: str
    """Type of the whole output, in words."""
    logits: PartKey
    mu: PartKey = None
    logvar: PartKey = None
    latent: bool = False
    """mu and logvar were found."""

    def read(self, output: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return (logits, mu, logvar) of an output of this form."""
        latent = (_part(output, self.mu), _part(output, self.logvar)) if self.latent else (None, None)
        return _part(output, self.logits), *latent

    def __str__(self) -> str:
        if (self.logits, self.mu, self.logvar) == (0, 1, 2):
            return "(logits, mu, logvar)"
        logits = "logits" if self.logits is None else f"logits at {self.logits!r} of a {self.kind}"
        latent = f", mu at {self.mu!r} and logvar at {self.logvar!r}" if self.latent else ", no mu and logvar"
        return logits + latent


def output_form(output: Any, shape: tuple[int, int, int]) -> OutputForm | None:
    """Find the parts in the output for a batch of `shape` (B, H, W); None where no part is (B, C, H, W) floats.

    A tensor is the logits. In a tuple, list, mapping, dataclass or object, logits, mu and logvar have known names. In a
    tuple or list the logits are otherwise the first tensor of their shape, and mu and logvar are the other tensors, in
    this order, where there are exactly two of equal shape.
    """
    if isinstance(output, Tensor):
        return OutputForm("tensor", None) if _is_logits(output, shape) else None
    parts = named_parts(output)
    kind = type(output).__name__
    fitting = [key for key, part in parts.items() if _is_logits(part, shape)]
    if not fitting:
        return None
    logits = next((name for name in LOGITS_NAMES if name in fitting), fitting[0])
    mu: int | str | None = _named(parts, MU_NAMES)
    logvar: int | str | None = _named(parts, LOGVAR_NAMES)
    if mu is None or logvar is None:
        others = [key for key in parts if key != logits]
        alike = len(others) == 2 and parts[others[0]].shape == parts[others[1]].shape
        if not (isinstance(output, (tuple, list)) and alike):
            return OutputForm(kind, logits)
        mu, logvar = others
    if parts[mu].shape != parts[logvar].shape or parts[mu].shape[:1] != shape[:1]:
        return OutputForm(kind, logits)
    return OutputForm(kind, logits, mu, logvar, latent=True)


def named_parts(output: Any) -> dict[int | str, Tensor]:
    """Return the tensors of an output by index or name."""
    found: Mapping[Any, Any]
    if isinstance(output, Mapping):
        found = output
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        found = dict(zip(output._fields, output, strict=True))
    elif isinstance(output, (tuple, list)):
        found = dict(enumerate(output))
    elif is_dataclass(output):
        found = {field.name: getattr(output, field.name) for field in fields(output)}
    else:
        found = getattr(output, "__dict__", {})
    return {key: part for key, part in found.items() if isinstance(part, Tensor)}


def described(output: Any) -> str:
    """Return an output in words, with the shapes of its tensors."""
    if isinstance(output, Tensor):
        return f"a tensor {_shape(output)}"
    parts = ", ".join(f"{key}: {_shape(part)}" for key, part in named_parts(output).items())
    return f"a {type(output).__name__} with {parts}" if parts else f"a {type(output).__name__} without tensors"


def _shape(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _is_logits(tensor: Tensor, shape: tuple[int, int, int]) -> bool:
    return tensor.dim() == 4 and (tensor.shape[0], *tensor.shape[2:]) == shape and tensor.is_floating_point()


def _named(parts: Mapping[int | str, Tensor], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in parts), None)


def _part(output: Any, key: PartKey) -> Tensor:
    if key is None:
        found = output
    elif isinstance(key, str) and not isinstance(output, Mapping):
        found = getattr(output, key)
    else:
        found = output[key]
    assert isinstance(found, Tensor)  # the form was found on the same model
    return found
