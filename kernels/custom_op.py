"""The operators `vaefit::focal_loss`, `vaefit::confusion_counts` and `vaefit::confusion_counts_ready`.

Registered with torch, so that torch.compile, fake tensors and autograd see one opaque call whatever backend runs below
it. They are functional: nothing that is passed in is written to.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter

from .checks import compute_dtype
from .reduction import Reduction

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


def _focal_loss(
    logits: Tensor,  # (B, C, *)
    targets: Tensor,  # (B, *)
    weight: Tensor | None,  # (C,) in the dtype of the arithmetic
    gamma: float,
    ignore_index: int,
    reduction: Reduction,
    backend: str,
    want_gradient: bool,
    want_counts: bool,
    reuse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss, gradient, remainder and tally of checked arguments.

    - loss: in the dtype of the arithmetic; (B, *) for the reduction `none`, else a scalar.
    - gradient: shaped and typed as the logits; empty (0,) unless wanted.
    - remainder: a scalar that the gradient must still be multiplied by. It is 1, but for float16 logits, whose small
      gradients survive only if the divisor of the mean is applied after the upstream gradient's scale, and on a GPU for
      a mean over cells of which some are ignored: how many is known only when the gradient has been written.
    - tally: int64 (C * C + 1,), the confusion counts by rows and then the number of labels outside 0..C-1 that are not
      ignored; empty (0,) unless wanted.

    With `reuse` nobody but the backward pass looks at the gradient, which may then scale it where it lies.
    """
    loss, gradient, remainder, tally = _implementation(backend).focal(
        logits, targets, weight, gamma, ignore_index, reduction, want_gradient, want_counts
    )
    return (
        loss,
        logits.new_empty(0) if gradient is None else gradient,
        loss.new_ones(()) if remainder is None else remainder,
        logits.new_empty(0, dtype=torch.int64) if tally is None else tally,
    )


def _confusion_counts(logits: Tensor, targets: Tensor, ignore_index: int, backend: str) -> Tensor:
    """The tally of `_focal_loss` alone."""
    return _implementation(backend).confusion(logits, targets, ignore_index)


def _confusion_counts_ready(
    predictions: Tensor, targets: Tensor, ignore_index: int, num_classes: int, backend: str
) -> Tensor:
    """The tally of predictions (B, *); a prediction outside 0..C-1 counts as a bad label does."""
    return _implementation(backend).confusion_ready(predictions, targets, ignore_index, num_classes)


class _Implementation(Protocol):
    """What the module of a backend holds; arguments and results are those of the operators.

    But for the loss, `focal` may give None: what is not wanted, and a remainder of which the host knows that it is 1.
    """

    def focal(
        self,
        logits: Tensor,
        targets: Tensor,
        weight: Tensor | None,
        gamma: float,
        ignore_index: int,
        reduction: Reduction,
        want_gradient: bool,
        want_counts: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]: ...

    def confusion(self, logits: Tensor, targets: Tensor, ignore_index: int) -> Tensor: ...

    def confusion_ready(self, predictions: Tensor, targets: Tensor, ignore_index: int, num_classes: int) -> Tensor: ...


@cache
def _implementation(backend: str) -> _Implementation:
    """The module of a backend; each is imported when it is first used."""
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


def _fake_focal_loss(
    logits: Tensor,
    targets: Tensor,
    weight: Tensor | None,
    gamma: float,
    ignore_index: int,
    reduction: str,
    backend: str,
    want_gradient: bool,
    want_counts: bool,
    reuse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype, classes = compute_dtype(logits), logits.shape[1]
    return (
        logits.new_empty(targets.shape if reduction == "none" else (), dtype=dtype),
        torch.empty_like(logits) if want_gradient else logits.new_empty(0),
        logits.new_empty((), dtype=dtype),
        logits.new_empty(classes * classes + 1 if want_counts else 0, dtype=torch.int64),
    )


def _fake_confusion_counts(logits: Tensor, targets: Tensor, ignore_index: int, backend: str) -> Tensor:
    return logits.new_empty(logits.shape[1] ** 2 + 1, dtype=torch.int64)


def _fake_confusion_counts_ready(
    predictions: Tensor, targets: Tensor, ignore_index: int, num_classes: int, backend: str
) -> Tensor:
    return predictions.new_empty(num_classes**2 + 1, dtype=torch.int64)


def _keep(
    ctx: Any,
    gradient: Tensor | None,
    remainder: Tensor | None,
    reduction: str,
    backend: str,
    want_gradient: bool,
    reuse: bool,
) -> None:
    ctx.set_materialize_grads(False)  # else each unused output is given zeros of its size
    ctx.save_for_backward(gradient, remainder)
    ctx.per_cell, ctx.backend, ctx.known, ctx.reuse = reduction == "none", backend, want_gradient, reuse


def _keep_outputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    reduction, backend, want_gradient, _, reuse = inputs[5:]
    _keep(ctx, output[1], output[2], reduction, backend, want_gradient, reuse)
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, upstream: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    return _logits_gradient(ctx, upstream), *(None,) * 9


def _logits_gradient(ctx: Any, upstream: Tensor | None) -> Tensor | None:
    """The gradient of the logits for that of the loss; None where the loss has none."""
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
    """gradient * upstream * remainder, rounded once; the gradient itself where the scalars' product is 1.

    `upstream` is (B, *) with `per_cell`, else a scalar, as `remainder` is; no remainder is one of 1.
    """
    # a tracer's tensor is of another type, and holds no number to look at, nor do several upstream gradients at once
    traced = torch.compiler.is_compiling() or type(gradient) is not Tensor
    if not per_cell and not traced and not torch._C._functorch.is_legacy_batchedtensor(upstream):
        if backend == "triton":
            assert remainder is not None
            from ._triton import scaled

            # whether the scale is 1 is known on the device only; a gradient that nobody asks for again may be changed
            return scaled(gradient, upstream, remainder, in_place=reuse and not _graph_is_kept())
        if gradient.device.type == "cpu" and upstream.item() * (1 if remainder is None else remainder.item()) == 1:
            return gradient  # loss.backward() needs no second pass over the buffer
    scale = upstream.unsqueeze(1) if per_cell else upstream
    # in the dtype of the scale: float16 could not hold a loss scale of 65,536
    scale = scale if remainder is None else scale * remainder
    return (gradient.to(scale.dtype) * scale).to(gradient.dtype)


def _graph_is_kept() -> bool:
    """True where the backward pass that is running may be run again: retain_graph, or a torch that does not tell."""
    tells = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return tells is None or bool(tells())


class _Direct(torch.autograd.Function):
    """The operator's forward and backward pass without torch's dispatcher in between."""

    # few arguments, each of which torch looks at on the way in and asks a gradient for on the way back
    @staticmethod
    def forward(ctx: Any, logits: Tensor, setting: tuple[Any, ...]) -> tuple[Tensor, Tensor | None]:
        targets, weight, gamma, ignore_index, reduction, backend, want_counts = setting
        with torch._C._AutoDispatchBelowAutograd():
            loss, gradient, remainder, tally = _implementation(backend).focal(
                logits, targets, weight, gamma, ignore_index, reduction, True, want_counts
            )
        _keep(ctx, gradient, remainder, reduction, backend, True, True)
        if not want_counts:
            return loss, None
        ctx.mark_non_differentiable(tally)
        return loss, tally

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, _: None) -> tuple[Tensor | None, None]:
        return _logits_gradient(ctx, upstream), None


def focal_loss_and_tally(
    logits: Tensor,
    targets: Tensor,
    weight: Tensor | None,
    gamma: float,
    ignore_index: int,
    reduction: Reduction,
    backend: str,
    want_counts: bool,
) -> tuple[Tensor, Tensor | None]:
    """Loss and tally of `vaefit::focal_loss`, called as cheaply as the situation allows; no tally unless wanted.

    A call through the dispatcher costs 80 us more, a fifth of a step's loss at batch 32. Only who traces, transforms or
    wraps tensors needs it.
    """
    setting = (targets, weight, gamma, ignore_index, reduction, backend)
    learns = torch.is_grad_enabled() and logits.requires_grad
    plain = type(logits) in (Tensor, Parameter) and type(targets) is Tensor
    if not plain or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        loss, _, _, tally = focal_loss(logits, *setting, learns, want_counts, True)
    elif learns:
        loss, tally = _Direct.apply(logits, (*setting, want_counts))  # type: ignore[no-untyped-call]
    else:
        loss, _, _, tally = _implementation(backend).focal(logits, *setting[:-1], False, want_counts)
    return loss, tally if want_counts else None


_operators: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "focal_loss": (_focal_loss, _fake_focal_loss),
    "confusion_counts": (_confusion_counts, _fake_confusion_counts),
    "confusion_counts_ready": (_confusion_counts_ready, _fake_confusion_counts_ready),
}
for _name, (_real, _fake) in _operators.items():
    _library.impl(_name, _real, "CompositeExplicitAutograd")
    torch.library.register_fake(f"vaefit::{_name}", _fake, lib=_library)
torch.library.register_autograd("vaefit::focal_loss", _backward, setup_context=_keep_outputs, lib=_library)

focal_loss = torch.ops.vaefit.focal_loss.default
confusion_counts = torch.ops.vaefit.confusion_counts.default
confusion_counts_ready = torch.ops.vaefit.confusion_counts_ready.default
