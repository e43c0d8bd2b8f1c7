"""Adapter of a model: the form of its inputs, and the place of the logits in its output."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from vaefit.cache.scan.histogram import MAX_CLASSES

from ..errors import RunError
from .beta_vae import BetaVAE
from .output_format import OutputForm, described, output_form
from .state import evaluating

InputForm = Literal["labels", "one-hot"]
FORMS: tuple[InputForm, ...] = ("labels", "one-hot")


@dataclass(frozen=True)
class Adapter:
    """Input and output form of one model, found by trying one batch. `str()` gives the text of a run header."""

    takes: InputForm
    gives: OutputForm
    classes: int
    """Channels of the logits."""
    ours: bool
    """The model is a BetaVAE, which can sample z on demand."""

    def inputs(self, labels: Tensor, model: nn.Module) -> Tensor:
        """Return the model's inputs for labels (B, H, W) int64."""
        if isinstance(model, BetaVAE):
            return model.one_hot(labels).contiguous(memory_format=torch.channels_last)
        return encode_labels(labels, self.takes, self.classes, _dtype(model))

    def outputs(
        self, model: nn.Module, inputs: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return (logits, mu, logvar); `noise` (B, latent) samples z and is for a BetaVAE only."""
        return self.gives.read(model(inputs) if noise is None else model(inputs, noise))

    def first_logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Return the model's logits, detached; RunError where no gradient leads from them to a parameter."""
        with torch.set_grad_enabled(not self.ours):
            logits, _, _ = self.outputs(model, inputs)
        if not (self.ours or logits.requires_grad):
            do = "Look for an argmax, a detach or torch.no_grad in its forward."
            raise RunError("no gradient leads from the logits to any parameter", type(model).__name__, do=do)
        return logits.detach()

    def __str__(self) -> str:
        takes = "labels (B, H, W)" if self.takes == "labels" else f"one-hot (B, {self.classes}, H, W)"
        return f"{takes} -> {self.gives}"


def find_adapter(
    model: nn.Module,
    labels: Tensor,
    classes: int | None,
    guessed_classes: int | None = None,
    ignore_index: int | None = None,
) -> Adapter:
    """Try a model on labels (B, H, W) int64, then on their one-hot form; take the one that gives logits (B, C, H, W).

    The model is tried in evaluation mode and without gradients; its mode is restored.

    Args:
        classes: C; None takes the channels of the logits.
        guessed_classes: C of the one-hot form where `classes` is None; None takes the model's attribute `num_classes`,
            `n_classes` or `classes`, else the largest label + 1.
        ignore_index: a label that is no class.

    Raises:
        RunError: neither form gives logits of this batch's shape, or the logits have other than C channels.
    """
    if isinstance(model, BetaVAE):
        found = OutputForm("tuple", (0,), ((1,), (2,)))
        return Adapter("one-hot", found, model.num_classes, ours=True)
    known = classes or guessed_classes or _stated_classes(model) or _largest(labels, ignore_index) + 1
    # a lazy layer takes the size of its first input, which must not be a wrong form
    lazy = any(is_lazy(p) for p in model.parameters())
    tries = [_try(copy.deepcopy(model) if lazy else model, labels, form, known) for form in FORMS]
    fitting = [t for t in tries if isinstance(t, Adapter)]
    adapter = next((a for a in fitting if classes is None or a.classes == classes), None)
    if adapter is not None:
        if lazy:
            _try(model, labels, adapter.takes, known)
        return adapter
    b, h, w = labels.shape
    needed = f"logits ({b}, {'C' if classes is None else classes}, {h}, {w})"
    if fitting:
        raise RunError(
            f"the model gives {fitting[0].classes} classes, but {classes} are needed",
            type(model).__name__,
            got=str(fitting[0]),
            do=f"Build it with {classes} classes, as by --model-arg, or pass --classes.",
        )
    failed = [t for t in tries if isinstance(t, _Failed)]
    # a wrong output says more than an error about a form that the model does not take
    shown = [t for t in failed if t.shape is not None] or failed
    raise RunError(
        f"the model must return {needed} for this batch, from labels or from their one-hot form",
        type(model).__name__,
        got="; ".join(dict.fromkeys(t.what if t.shape is None else t.what.partition(" from ")[0] for t in shown)),
        do=_hint(shown[0], (b, h, w), classes),
    )


def encode_labels(labels: Tensor, form: InputForm, classes: int, dtype: torch.dtype) -> Tensor:
    """Return labels (B, H, W) in the form that a model takes: labels, or one-hot floats (B, C, H, W).

    A label outside the classes, which the loss ignores, becomes class 0 as a label and zeros as one-hot.
    """
    inside = (labels >= 0) & (labels < classes)
    if form == "labels":
        return torch.where(inside, labels, 0)
    every = torch.arange(classes, device=labels.device).view(1, -1, 1, 1)
    return (labels.unsqueeze(1) == every).to(dtype)


@dataclass(frozen=True)
class _Failed:
    """Input form for which the model returned no logits."""

    what: str
    shape: tuple[int, ...] | None = None
    """Shape of the output, where it was one tensor."""


def _try(model: nn.Module, labels: Tensor, form: InputForm, classes: int) -> Adapter | _Failed:
    inputs = encode_labels(labels, form, classes, _dtype(model))
    try:
        with evaluating(model), torch.no_grad():
            output = model(inputs)
            again = output if isinstance(output, Tensor) else model(inputs)
    except Exception as error:  # a model may raise any error on an input that it does not take
        first = str(error).strip().partition("\n")[0]
        return _Failed(f"{type(error).__name__} from {form} {tuple(inputs.shape)}: {first}")
    b, h, w = labels.shape
    found = output_form(output, again, inputs, (b, h, w))
    if found is None:
        shape = tuple(output.shape) if isinstance(output, Tensor) else ()
        return _Failed(f"{described(output)} from {form} {tuple(inputs.shape)}", shape)
    return Adapter(form, found, found.read(output)[0].shape[1], ours=False)


def _hint(failed: _Failed, shape: tuple[int, int, int], classes: int | None) -> str:
    b, h, w = shape
    found = failed.shape
    if found == shape:
        return "Return the logits of all classes, not the labels: leave the argmax out."
    if found is not None and len(found) == 4 and found[:3] == shape:
        return "The classes come last: permute(0, 3, 1, 2) what it returns."
    if found is not None and len(found) == 4 and found[0] == b and found[2:] != (h, w):
        return f"Its sides are not {h} x {w}: crop or pad them in the model, or in a module around it."
    if found is not None and len(found) in (2, 3) and found[0] == b:
        cells = "" if classes is None else f" by view({b}, {classes}, {h}, {w})"
        return f"Reshape what it returns{cells}, in the model or in a module around it."
    return "Wrap it in a module whose forward takes one of the two and returns logits, or (logits, mu, logvar)."


def _dtype(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def _stated_classes(model: nn.Module) -> int | None:
    stated = (getattr(model, name, None) for name in ("num_classes", "n_classes", "classes"))
    return next((value for value in stated if type(value) is int and 1 < value <= MAX_CLASSES), None)


def _largest(labels: Tensor, ignore_index: int | None) -> int:
    """Return the largest label that is not ignored, at most the largest possible class."""
    kept = labels if ignore_index is None else labels[labels != ignore_index]
    return min(int(kept.max()), MAX_CLASSES - 1) if kept.numel() else 1
