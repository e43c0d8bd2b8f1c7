"""The operators `vaefit::focal_loss`, `vaefit::confusion_counts` and `vaefit::confusion_counts_ready`.

Registered with torch, so that torch.compile, fake tensors and autograd see one opaque call whatever backend runs below
it. They are functional: nothing that is passed in is written to.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .arguments import compute_dtype

_library = torch.library.Library("vaefit", "DEF")
_library.define(
    "focal_loss(Tensor logits, Tensor targets, Tensor? weight, float gamma, int ignore_index, str reduction, "
    "str backend, bool want_gradient, bool want_counts) "
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
    reduction: str,
    backend: str,
    want_gradient: bool,
    want_counts: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss, gradient, remainder and tally of checked arguments.

    - loss: in the dtype of the arithmetic; (B, *) for the reduction `none`, else a scalar.
    - gradient: shaped and typed as the logits; empty (0,) unless wanted.
    - remainder: a scalar that the gradient must still be multiplied by. It is 1, but for float16 logits, whose small
      gradients survive only if the divisor of the mean is applied after the upstream gradient's scale, and on a GPU for
      a mean over cells of which some are ignored: how many is known only when the gradient has been written.
    - tally: int64 (C * C + 1,), the confusion counts by rows and then the number of labels outside 0..C-1 that are not
      ignored; empty (0,) unless wanted.
    """
    return _implementation(backend).focal(
        logits, targets, weight, gamma, ignore_index, reduction, want_gradient, want_counts
    )


def _confusion_counts(logits: Tensor, targets: Tensor, ignore_index: int, backend: str) -> Tensor:
    """The tally of `_focal_loss` alone."""
    return _implementation(backend).confusion(logits, targets, ignore_index)


def _confusion_counts_ready(
    predictions: Tensor, targets: Tensor, ignore_index: int, num_classes: int, backend: str
) -> Tensor:
    """The tally of predictions (B, *); a prediction outside 0..C-1 counts as a bad label does."""
    return _implementation(backend).confusion_ready(predictions, targets, ignore_index, num_classes)


def _implementation(backend: str) -> Any:
    """The module of a backend; each is imported when it is first used."""
    if backend == "triton":
        from . import _triton

        return _triton
    if backend == "compiled":
        from . import compiled

        return compiled
    from . import eager

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


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, gradient, remainder, _ = output
    ctx.set_materialize_grads(False)  # else each unused output is given zeros of its size
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(gradient, remainder)
    ctx.per_cell = inputs[5] == "none"


def _backward(ctx: Any, upstream: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    rest = (None,) * 8
    if upstream is None:
        return None, *rest
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # only under create_graph
        raise RuntimeError(
            "focal_loss keeps its gradient, not the graph of it, so a second derivative would be silently zero. "
            "Use backend='reference' for double backward."
        )
    gradient, remainder = ctx.saved_tensors
    return scaled(gradient, upstream * remainder, ctx.per_cell), *rest


def scaled(gradient: Tensor, scale: Tensor, per_cell: bool) -> Tensor:
    """The gradient times a scalar scale, or times one a cell (B, *), rounded once; itself where the scale is 1."""
    if per_cell:
        scale = scale.unsqueeze(1)
    elif gradient.device.type == "cpu" and not torch.compiler.is_compiling() and scale == 1:
        # loss.backward() needs no second pass over the buffer; on a GPU, looking would stall the stream
        return gradient
    # in the dtype of the scale: float16 could not hold a loss scale of 65,536
    return (gradient.to(scale.dtype) * scale).to(gradient.dtype)


_implementations = {
    "focal_loss": (_focal_loss, _fake_focal_loss),
    "confusion_counts": (_confusion_counts, _fake_confusion_counts),
    "confusion_counts_ready": (_confusion_counts_ready, _fake_confusion_counts_ready),
}
for _name, (_real, _fake) in _implementations.items():
    _library.impl(_name, _real, "CompositeExplicitAutograd")
    torch.library.register_fake(f"vaefit::{_name}", _fake, lib=_library)
torch.library.register_autograd("vaefit::focal_loss", _backward, setup_context=_keep, lib=_library)

focal_loss = torch.ops.vaefit.focal_loss.default
confusion_counts = torch.ops.vaefit.confusion_counts.default
confusion_counts_ready = torch.ops.vaefit.confusion_counts_ready.default
