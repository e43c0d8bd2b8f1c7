"""Peers: other implementations, each with the signature of a contestant, `peer(inputs, op) -> Answer`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .inputs import GAMMA, Answer, Contestant, Inputs, Op, gradient_of

LossOf = Callable[[Tensor, Tensor, Tensor], Tensor]


def naive(inputs: Inputs, op: Op) -> Answer:
    """Softmax and gather for p_t, `F.cross_entropy` for -log p_t, both by autograd; counts by torchmetrics.

    Twice a pass over the logits for what one softmax holds, because the formula reads so. The arithmetic is in the
    logits' dtype, but for the class weights, which are float32.
    """
    return _separate(naive_loss, inputs, op)


def cross_entropy(inputs: Inputs, op: Op) -> Answer:
    """`F.cross_entropy` for -log p_t and exp of its negative for p_t, by autograd; counts by torchmetrics.

    The best that plain PyTorch offers without a gradient of one's own. Dtypes as in `naive`.
    """
    return _separate(cross_entropy_loss, inputs, op)


def torchmetrics(inputs: Inputs, op: Op) -> Answer:
    """The confusion matrix of torchmetrics from logits, without its checks of the arguments; only for `counts`."""
    assert op == "counts"
    return Answer(counts=_torchmetrics_counts(inputs.logits.detach(), inputs.targets))


def inductor(inputs: Inputs, op: Op) -> Answer:
    """`torch.compile` of the loss of `cross_entropy` with the counts in the same graph, for exactly this shape.

    The counts are argmax and a scatter of ones: what torchmetrics computes, in a form that compiles as a whole.
    """
    if op == "counts":
        return Answer(counts=_compiled(_scattered_counts)(inputs.logits.detach(), inputs.targets))
    with torch.set_grad_enabled("gradient" in op):
        found = _compiled(_loss_and_counts if "counts" in op else _loss_alone)(
            inputs.logits, inputs.targets, inputs.weight
        )
    gradient = gradient_of(found[0], inputs) if "gradient" in op else None
    return Answer(found[0], gradient, found[1] if "counts" in op else None)


def liger(inputs: Inputs, op: Op) -> Answer:
    """Liger's cross-entropy, the nearest fused kernel: it does less. Not focal, no class weights here, no counts.

    It takes cells by classes, contiguous, and writes the gradient over them, so each call gets a copy of its own in
    that order, made outside the timed region: a user with (B, C, H, W) logits would pay for it.
    """
    assert op == "loss+gradient"
    from liger_kernel.ops.cross_entropy import LigerCrossEntropyFunction

    loss = LigerCrossEntropyFunction.apply(inputs.logits, inputs.targets, None)[0]
    return Answer(loss, gradient_of(loss, inputs))


def cells_by_classes(inputs: Inputs) -> Inputs:
    """Return a copy of the inputs with logits (N, C) and targets (N,)."""
    logits = inputs.logits.detach().movedim(1, -1).flatten(0, -2).clone(memory_format=torch.contiguous_format)
    return Inputs(logits.requires_grad_(), inputs.targets.flatten(), inputs.weight)


def naive_loss(logits: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """Return the loss of `naive`."""
    p_t = torch.softmax(logits, dim=1).gather(1, targets.unsqueeze(1)).squeeze(1)
    ce = functional.cross_entropy(logits, targets, reduction="none")
    return (weight[targets] * (1 - p_t) ** GAMMA * ce).mean()


def cross_entropy_loss(logits: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """Return the loss of `cross_entropy` and `inductor`."""
    ce = functional.cross_entropy(logits, targets, reduction="none")
    return (weight[targets] * (1 - torch.exp(-ce)) ** GAMMA * ce).mean()


def available(device: torch.device, with_inductor: bool) -> tuple[list[Contestant], list[str]]:
    """Return the peers that can run here, the most used one first, and notes on those that cannot."""
    peers, missing = [], []
    counts = find_spec("torchmetrics") is not None
    ops: tuple[Op, ...] = ("loss+gradient+counts", "loss+gradient", "loss+counts") if counts else ("loss+gradient",)
    peers += [Contestant("naive", naive, ops), Contestant("cross_entropy", cross_entropy, ops)]
    compiler = _compiler_missing(device)
    if not with_inductor:
        missing.append("inductor is left out with --quick: each of its rows is compiled first, for seconds")
    elif compiler is not None:
        missing.append(f"inductor is left out: {compiler}")
    else:
        peers.append(Contestant("inductor", inductor))
    if counts:
        peers.append(Contestant("torchmetrics", torchmetrics, ("counts",)))
    else:
        missing.append("torchmetrics is not installed, so nobody counts beside us: pip install 'vaefit[bench]'")
    if device.type != "cuda":
        missing.append("liger is left out: its kernels need a GPU")
    elif find_spec("liger_kernel") is None:
        missing.append("liger is left out, it is not installed: pip install 'vaefit[bench]'")
    else:
        missing.append(
            "liger computes less: cross-entropy without focus, class weights or counts; "
            "its input is rearranged and copied outside the timed region"
        )
        peers.append(
            Contestant("liger", liger, ("loss+gradient",), gamma=0.0, weighted=False, prepare=cells_by_classes)
        )
    return peers, missing


def _compiler_missing(device: torch.device) -> str | None:
    """Return the reason why torch.compile cannot work; None where it can."""
    if device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))):
        return "there is no C++ compiler"
    return None


def _separate(loss_of: LossOf, inputs: Inputs, op: Op) -> Answer:
    """Return the loss by autograd, then the counts by torchmetrics."""
    with torch.set_grad_enabled("gradient" in op):
        loss = loss_of(inputs.logits, inputs.targets, inputs.weight)
    gradient = gradient_of(loss, inputs) if "gradient" in op else None
    counts = _torchmetrics_counts(inputs.logits.detach(), inputs.targets) if "counts" in op else None
    return Answer(loss.detach(), gradient, counts)


def _torchmetrics_counts(logits: Tensor, targets: Tensor) -> Tensor:
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    found: Tensor = multiclass_confusion_matrix(logits, targets, num_classes=logits.shape[1], validate_args=False)
    return found


def _scattered_counts(logits: Tensor, targets: Tensor) -> Tensor:
    classes = logits.shape[1]
    pairs = (targets * classes + logits.argmax(dim=1)).flatten()
    counts = torch.zeros(classes * classes, dtype=torch.int64, device=logits.device)
    return counts.scatter_add(0, pairs, torch.ones_like(pairs)).view(classes, classes)


def _loss_alone(logits: Tensor, targets: Tensor, weight: Tensor) -> tuple[Tensor]:
    return (cross_entropy_loss(logits, targets, weight),)


def _loss_and_counts(logits: Tensor, targets: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return cross_entropy_loss(logits, targets, weight), _scattered_counts(logits.detach(), targets)


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=False, fullgraph=True)
