"""Adapter of a model: the form of its inputs, and the place of the logits in its output."""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.parameter import is_lazy

from vaefit.cache.scan.histogram import MAX_CLASSES

from ..errors import RunError, UserCodeError, first_line, place_of
from .beta_vae import BetaVAE
from .output_format import OutputForm, described, output_form
from .state import evaluating
from .user_code import user_code

InputForm = Literal["labels", "one-hot"]
FEW_SIDES = 1.5
"""Ratio of sides from which a layer that changes the resolution is missing, not the padding of one."""
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
    channels: int = 0
    """Channels of the one-hot inputs; 0 where the model takes labels."""

    def inputs(self, labels: Tensor, model: nn.Module) -> Tensor:
        """Return the model's inputs for labels (B, H, W) int64."""
        if isinstance(model, BetaVAE):
            return model.one_hot(labels).contiguous(memory_format=torch.channels_last)
        return encode_labels(labels, self.takes, self.channels or self.classes, _dtype(model))

    def outputs(
        self, model: nn.Module, inputs: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return (logits, mu, logvar); `noise` (B, latent) samples z and is for a BetaVAE only.

        Raises UserCodeError where a user's model raises, and RunError where its output is not as it was when tried.
        """
        with user_code(model):
            output = model(inputs) if noise is None else model(inputs, noise)
        wanted = (inputs.shape[0], self.classes, *inputs.shape[-2:])
        with suppress(AttributeError, LookupError, TypeError, AssertionError):
            logits, mu, logvar = self.gives.read(output)
            if tuple(logits.shape) == wanted:
                return logits, mu, logvar
        do = "Return the same form in training and in evaluation."
        what = f"the model gave {self.gives} when it was tried, and now another output"
        raise RunError(what, type(model).__name__, described(output), do)

    def first_logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Return the model's logits, detached; RunError where no gradient leads from them to a parameter."""
        with torch.set_grad_enabled(not self.ours):
            logits, _, _ = self.outputs(model, inputs)
        if not (self.ours or logits.requires_grad):
            do = "Look for an argmax, a detach or torch.no_grad in its forward."
            raise RunError("no gradient leads from the logits to any parameter", type(model).__name__, do=do)
        return logits.detach()

    def __str__(self) -> str:
        takes = "labels (B, H, W)" if self.takes == "labels" else f"one-hot (B, {self.channels or self.classes}, H, W)"
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
    stated = classes or guessed_classes or _stated_classes(model)
    known = stated or _largest(labels, ignore_index) + 1
    # a lazy layer takes the size of its first input, which must not be a wrong form
    lazy = any(is_lazy(p) for p in model.parameters())
    tries = [_try(_copy(model) if lazy else model, labels, form, known) for form in FORMS]
    if stated is None and not any(isinstance(t, Adapter) and t.classes > 1 for t in tries):
        # the batch may lack the last classes
        tries += [_try(model, labels, "one-hot", channels) for channels in _input_channels(model, labels)]
    fitting = [t for t in tries if isinstance(t, Adapter)]
    adapter = next((a for a in fitting if a.classes > 1 and classes in (None, a.classes)), None)
    if adapter is not None:
        if lazy:
            _try(model, labels, adapter.takes, known)
        return adapter
    if fitting:
        raise _other_classes(model, fitting[0], known if classes is None else classes)
    raise _no_logits(model, [t for t in tries if isinstance(t, _Failed)], labels, classes, guess=stated is None)


def _copy(model: nn.Module) -> nn.Module:
    """Return a copy of a model with lazy layers; RunError where it cannot be copied."""
    try:
        return copy.deepcopy(model)
    except Exception as error:  # a part of the model may refuse it by any error
        got = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        do = "Call it once on a batch, so that its lazy layers have their sizes."
        raise RunError(
            "a model with lazy layers is tried on copies, but cannot be copied", type(model).__name__, got, do
        ) from None


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
    """Shape of the output, where it was one tensor; () for another output."""
    calls: int = 0
    """Layers that gave an output: a form that the model takes comes further than one that it does not."""
    error: UserCodeError | None = None


def _try(model: nn.Module, labels: Tensor, form: InputForm, classes: int) -> Adapter | _Failed:
    inputs = encode_labels(labels, form, classes, _dtype(model))
    given = f"from {form} {tuple(inputs.shape)}"
    called: list[None] = []
    hook = register_module_forward_hook(lambda *_: called.append(None))
    try:
        with evaluating(model), torch.no_grad(), user_code(model):
            output = model(inputs)
            again = output if isinstance(output, Tensor) else model(inputs)
    except UserCodeError as error:  # a model may raise any error on an input that it does not take
        cause = error.__cause__ or error
        return _Failed(f"{type(cause).__name__} {given}: {first_line(cause)}", None, len(called), error.at(given))
    finally:
        hook.remove()
    b, h, w = labels.shape
    found = output_form(output, again, inputs, (b, h, w))
    if found is None:
        shape = tuple(output.shape) if isinstance(output, Tensor) else ()
        return _Failed(f"{described(output)} {given}", shape)
    channels = classes if form == "one-hot" else 0
    return Adapter(form, found, found.read(output)[0].shape[1], ours=False, channels=channels)


def _other_classes(model: nn.Module, found: Adapter, classes: int) -> RunError:
    """Return the error of a model whose logits have another number of classes."""
    do = f"Build it with {classes} classes, as by --model-arg, or pass --classes."
    if found.classes == 1:
        do = f"Return {classes} channels, one a class; for two classes the softmax then replaces the sigmoid."
    what = f"the model gives {found.classes} class{'' if found.classes == 1 else 'es'}, but {classes} are needed"
    return RunError(what, type(model).__name__, str(found), do)


def _no_logits(model: nn.Module, tries: list[_Failed], labels: Tensor, classes: int | None, guess: bool) -> RunError:
    """Return the error of a model that returned no logits for any form; `guess`: C was taken from the batch."""
    b, h, w = labels.shape
    # a wrong output says more than an error about a form that the model does not take
    shown = [t for t in tries if t.shape is not None] or tries
    furthest = [t for t in shown if t.calls == max(t.calls for t in shown)]
    raised = {str(t.error.__cause__): t.error for t in furthest if t.error is not None}
    if len(raised) == 1:
        return next(iter(raised.values()))  # the model takes this form, or any, and fails for another reason
    hint = _hint(shown[0], (b, h, w), classes)
    takes = next(iter(_input_channels(model, labels)), None)
    if shown[0].error is not None and takes is not None and classes not in (None, takes):
        hint = f"Its first layer takes {takes} channels: build it for {classes} classes, or pass --classes {takes}."
    elif shown[0].error is not None and guess:
        hint = f"The batch ends at label {_largest(labels, None)}: if the model has more classes, pass classes=C."
    cause = None if furthest[-1].error is None else furthest[-1].error.__cause__
    place = "" if cause is None else place_of(cause)
    found = RunError(
        f"the model must return logits ({b}, {'C' if classes is None else classes}, {h}, {w}) for this batch, from "
        "labels or from their one-hot form",
        type(model).__name__,
        got="; ".join(dict.fromkeys(t.what if t.error is not None else t.what.partition(" from ")[0] for t in shown))
        + (f" ({place})" if place else ""),
        do=hint,
    )
    found.__cause__ = cause
    return found


def _hint(failed: _Failed, shape: tuple[int, int, int], classes: int | None) -> str:
    b, h, w = shape
    found = failed.shape
    if found == shape:
        return "Return the logits of all classes, not the labels: leave the argmax out."
    if found is not None and len(found) == 4 and found[:3] == shape:
        return "The classes come last: permute(0, 3, 1, 2) what it returns."
    if found is not None and len(found) == 4 and found[0] == b and found[2:] != (h, w):
        return _sides_hint(found[2:], (h, w))
    if found is not None and len(found) in (2, 3) and found[0] == b:
        cells = "" if classes is None else f" by view({b}, {classes}, {h}, {w})"
        return f"Reshape what it returns{cells}, in the model or in a module around it."
    return "Wrap it in a module whose forward takes one of the two and returns logits, or (logits, mu, logvar)."


def _sides_hint(found: tuple[int, ...], wanted: tuple[int, int]) -> str:
    """Return the advice for logits with other sides than the grids'."""
    sides = f"Its sides are not {wanted[0]} x {wanted[1]} but {found[0]} x {found[1]}"
    if all(FEW_SIDES * f <= w for f, w in zip(found, wanted, strict=True)):
        return f"{sides}: the decoder lacks upsampling. Add it, or interpolate(logits, size={wanted})."
    if all(f >= FEW_SIDES * w for f, w in zip(found, wanted, strict=True)):
        return f"{sides}: the decoder upsamples too often, or the encoder lacks a stride."
    if all(f <= w for f, w in zip(found, wanted, strict=True)):
        return f"{sides}: a layer lacks padding, as padding=1 for a kernel of 3. Add it, or pad what it returns."
    return f"{sides}: crop or pad what it returns."


def _dtype(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def _stated_classes(model: nn.Module) -> int | None:
    stated = (getattr(model, name, None) for name in ("num_classes", "n_classes", "classes"))
    return next((value for value in stated if type(value) is int and 1 < value <= MAX_CLASSES), None)


def _input_channels(model: nn.Module, labels: Tensor) -> list[int]:
    """Return the possible C of the one-hot input by the sizes of the first layer with weights."""
    first = next((m for m in model.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear))), None)
    if first is None:
        return []
    cells = labels[0].numel()
    inputs = first.in_features if isinstance(first, nn.Linear) else first.in_channels
    found = inputs // cells if isinstance(first, nn.Linear) and inputs % cells == 0 else inputs
    return [found] if 1 < found <= MAX_CLASSES else []


def _largest(labels: Tensor, ignore_index: int | None) -> int:
    """Return the largest label that is not ignored, at most the largest possible class."""
    kept = labels if ignore_index is None else labels[labels != ignore_index]
    return min(int(kept.max()), MAX_CLASSES - 1) if kept.numel() else 1
