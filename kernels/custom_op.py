"""Torch operators `vaefit::focal_loss`, `vaefit::confusion_counts` and `vaefit::confusion_counts_ready`.

They are registered with torch, so that torch.compile, fake tensors and autograd see one opaque call for every backend.
They are functional: they write to none of their arguments.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter

from .checks import FocalResult, FocalSetting, Reduction, compute_dtype

_library: Any = torch.library.Library("vaefit", "DEF")  # type: ignore[no-untyped-call]
_library.define(
    "focal_loss(Tensor logits, Tensor targets, Tensor? weight, float gamma, int ignore_index, str reduction, "
    "str backend, bool want_gradient, bool want_counts, bool reuse) "
    "-> (Tensor loss, Tensor gradient, Tensor remainder, Tensor tally)"
)
_library.define("confusion_counts(Tensor logits, Tensor targets, int ignore_index, str backend) -> Tensor tally")
_library.define(
    "confusion_counts_ready(Tensor predictions, Tensor targets, int ignore_index, int num_classes, str backend) "
    "-> Tensor tally"
)


class Implementation(Protocol):
    """Module of a backend. Its functions take checked tensors and write to none of them."""

    def focal(self, logits: Tensor, targets: Tensor, setting: FocalSetting) -> FocalResult:
        """Return the loss of logits (B, C, *) and targets (B, *), and what the setting wants beside it."""

    def confusion(self, logits: Tensor, targets: Tensor, ignore_index: int) -> Tensor:
        """Return the tally of logits (B, C, *) against targets (B, *)."""

    def confusion_ready(self, predictions: Tensor, targets: Tensor, ignore_index: int, num_classes: int) -> Tensor:
        """Return the tally of predictions (B, *); a prediction outside 0..C-1 counts as a label outside does."""


@cache
def _implementation(backend: str) -> Implementation:
    """Return the module of a backend; each is imported on its first use."""
    if backend == "triton":
        from . import _triton

        return _triton
    if backend == "compiled":
        from .cpu import compiled

        return compiled
    if backend != "eager":
        raise ValueError(f"backend is {backend!r}. Use one of triton, compiled, eager.")
    from .cpu import eager

    return eager


def _focal_loss(
    logits: Tensor,
    targets: Tensor,
    weight: Tensor | None,
    gamma: float,
    ignore_index: int,
    reduction: Reduction,
    backend: str,
    want_gradient: bool,
    want_counts: bool,
    reuse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a `FocalResult` with tensors in place of None: empty (0,) for an output, a scalar 1 for the remainder.

    With `reuse` only the backward pass reads the gradient, and may scale it in place.
    """
    setting = FocalSetting(weight, gamma, ignore_index, reduction, want_gradient, want_counts)
    loss, gradient, remainder, tally = _implementation(backend).focal(logits, targets, setting)
    return (
        loss,
        logits.new_empty(0) if gradient is None else gradient,
        loss.new_ones(()) if remainder is None else remainder,
        logits.new_empty(0, dtype=torch.int64) if tally is None else tally,
    )


def _fake_focal_loss(logits: Tensor, targets: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    reduction, _, want_gradient, want_counts, _ = arguments[3:]
    dtype, classes = compute_dtype(logits), logits.shape[1]
    return (
        logits.new_empty(targets.shape if reduction == "none" else (), dtype=dtype),
        torch.empty_like(logits) if want_gradient else logits.new_empty(0),
        logits.new_empty((), dtype=dtype),
        logits.new_empty(classes * classes + 1 if want_counts else 0, dtype=torch.int64),
    )


def _confusion_counts(logits: Tensor, targets: Tensor, ignore_index: int, backend: str) -> Tensor:
    return _implementation(backend).confusion(logits, targets, ignore_index)


def _fake_confusion_counts(logits: Tensor, *_: Any) -> Tensor:
    return logits.new_empty(logits.shape[1] ** 2 + 1, dtype=torch.int64)


def _confusion_counts_ready(
    predictions: Tensor, targets: Tensor, ignore_index: int, num_classes: int, backend: str
) -> Tensor:
    return _implementation(backend).confusion_ready(predictions, targets, ignore_index, num_classes)


def _fake_confusion_counts_ready(predictions: Tensor, targets: Tensor, _: int, num_classes: int, *__: Any) -> Tensor:
    return predictions.new_empty(num_classes**2 + 1, dtype=torch.int64)


def _save(ctx: Any, gradient: Tensor | None, remainder: Tensor | None, reduction: str, backend: str) -> None:
    """Save for the backward pass what it needs of the forward pass."""
    ctx.set_materialize_grads(False)  # else each unused output is given zeros of its size
    ctx.save_for_backward(gradient, remainder)
    ctx.per_cell, ctx.backend, ctx.known, ctx.reuse = reduction == "none", backend, True, True


def _save_outputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    reduction, backend, want_gradient, _, reuse = inputs[5:]
    _save(ctx, output[1], output[2], reduction, backend)
    ctx.known, ctx.reuse = want_gradient, reuse
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, upstream: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    return _logits_gradient(ctx, upstream), *(None,) * 9


def _logits_gradient(ctx: Any, upstream: Tensor | None) -> Tensor | None:
    """Return the gradient of the logits for that of the loss; None where the loss has none."""
    if upstream is None:
        return None
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # only under create_graph
        raise RuntimeError(
            "focal_loss keeps its gradient, not the graph of it, so a second derivative would be silently zero. "
            "Use backend='reference' for double backward."
        )
    if not ctx.known:  # torch.vmap hides that its input requires a gradient
        raise RuntimeError("focal_loss was called without a gradient being wanted, as under torch.vmap. Use a loop.")
    gradient, remainder = ctx.saved_tensors
    return _scaled(gradient, upstream, remainder, ctx.per_cell, ctx.backend, ctx.reuse)


def _scaled(
    gradient: Tensor, upstream: Tensor, remainder: Tensor | None, per_cell: bool, backend: str, reuse: bool
) -> Tensor:
    """Return gradient * upstream * remainder, rounded once; the gradient itself where the scalars' product is 1.

    `upstream` is (B, *) with `per_cell`, else a scalar, as `remainder` is; no remainder is one of 1.
    """
    # a tracer's tensor is of another type, and holds no number to look at, nor do several upstream gradients at once
    traced = torch.compiler.is_compiling() or type(gradient) is not Tensor
    if not per_cell and not traced and not torch._C._functorch.is_legacy_batchedtensor(upstream):
        if backend == "triton":
            assert remainder is not None
            from ._triton import scaled

            # only the device knows if the scale is 1; a gradient that no later pass reads may be changed
            return scaled(gradient, upstream, remainder, in_place=reuse and not _graph_is_kept())
        if gradient.device.type == "cpu" and upstream.item() * (1 if remainder is None else remainder.item()) == 1:
            return gradient  # loss.backward() needs no second pass over the buffer
    scale = upstream.unsqueeze(1) if per_cell else upstream
    # in the dtype of the scale: float16 could not hold a loss scale of 65,536
    scale = scale if remainder is None else scale * remainder
    return (gradient.to(scale.dtype) * scale).to(gradient.dtype)


def _graph_is_kept() -> bool:
    """True where the running backward pass may run again: with retain_graph, or a torch without this query."""
    query = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return query is None or bool(query())


class _Direct(torch.autograd.Function):
    """Forward and backward pass of the operator without torch's dispatcher in between."""

    # few arguments: torch inspects each on the way in and asks for a gradient of each on the way back
    @staticmethod
    def forward(ctx: Any, logits: Tensor, arguments: tuple[Tensor, FocalSetting, str]) -> tuple[Tensor, Tensor | None]:
        targets, setting, backend = arguments
        with torch._C._AutoDispatchBelowAutograd():
            loss, gradient, remainder, tally = _implementation(backend).focal(logits, targets, setting)
        _save(ctx, gradient, remainder, setting.reduction, backend)
        if tally is not None:
            ctx.mark_non_differentiable(tally)
        return loss, tally

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, _: None) -> tuple[Tensor | None, None]:
        return _logits_gradient(ctx, upstream), None


def focal_loss_and_tally(
    logits: Tensor, targets: Tensor, setting: FocalSetting, backend: str
) -> tuple[Tensor, Tensor | None]:
    """Return loss and tally of `vaefit::focal_loss` by the cheapest call that the situation allows.

    A call through the dispatcher costs 80 us more, a fifth of a step's loss at batch 32. Only traced, transformed or
    wrapped tensors need it.
    """
    plain = type(logits) in (Tensor, Parameter) and type(targets) is Tensor
    if not plain or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        loss, _, _, tally = focal_loss(logits, targets, *setting[:4], backend, *setting[4:], True)
        return loss, tally if setting.want_counts else None
    if setting.want_gradient:
        return _Direct.apply(logits, (targets, setting, backend))  # type: ignore[no-any-return, no-untyped-call]
    loss, _, _, tally = _implementation(backend).focal(logits, targets, setting)
    return loss, tally


for _name, _real, _fake in (
    ("focal_loss", _focal_loss, _fake_focal_loss),
    ("confusion_counts", _confusion_counts, _fake_confusion_counts),
    ("confusion_counts_ready", _confusion_counts_ready, _fake_confusion_counts_ready),
):
    _library.impl(_name, _real, "CompositeExplicitAutograd")
    torch.library.register_fake(f"vaefit::{_name}", _fake, lib=_library)
torch.library.register_autograd("vaefit::focal_loss", _backward, setup_context=_save_outputs, lib=_library)

focal_loss = torch.ops.vaefit.focal_loss.default
confusion_counts = torch.ops.vaefit.confusion_counts.default
confusion_counts_ready = torch.ops.vaefit.confusion_counts_ready.default
