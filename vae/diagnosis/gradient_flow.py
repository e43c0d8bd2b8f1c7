"""Which parameters no gradient reaches, at the start of a run and after another initialisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..model.state import evaluating
from ..objective.objective import NO_LABEL, Objective
from .failed_run import FailedRun

NAMED = 3
"""Layers that are named; more are counted."""


def blocked_parameters(patient: FailedRun) -> tuple[str, ...]:
    """The parameters that never have a gradient: neither at the start nor after the rescaled initialisation.

    One that is only 0 at the start, as all are below a layer of zeros, is the initialisation's fault; one that is
    still 0 after another one is cut off, frozen or unused.
    """
    patient.start(patient.recipe.init)
    blocked = _without_gradient(patient)
    if blocked:
        patient.start("rescaled")
        blocked &= _without_gradient(patient)
    return tuple(name for name, _ in patient.model.named_parameters() if name in blocked)


def cut_off(patient: FailedRun, blocked: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the blocked parameters that are neither frozen nor of a layer that is never called: a mistake."""
    called: set[str] = set()
    modules = dict(patient.model.named_modules())
    hooks = [m.register_forward_hook(lambda *_, name=name: called.add(name)) for name, m in modules.items()]
    try:
        with evaluating(patient.model), torch.no_grad():
            patient.adapter.outputs(patient.model, patient.inputs())
    finally:
        for hook in hooks:
            hook.remove()
    learning = {name for name, p in patient.model.named_parameters() if p.requires_grad}
    return tuple(name for name in blocked if name in learning and name.rpartition(".")[0] in called)


def layers_of(parameters: tuple[str, ...], model: nn.Module) -> str:
    """The layers of the parameters by name: the smallest part of the model that holds no others, or the layers."""
    every = [name for name, _ in model.named_parameters()]
    left = set(parameters)
    names: list[str] = []
    while left:
        first = next(name for name in every if name in left)
        pieces = first.split(".")
        # the largest part that is blocked as a whole
        for depth in range(1, len(pieces) + 1):
            part = ".".join(pieces[:depth])
            inside = {name for name in every if name == part or name.startswith(part + ".")}
            if inside <= left or depth == len(pieces):
                names.append(part)
                left -= inside
                break
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _without_gradient(patient: FailedRun) -> set[str]:
    """The names of parameters whose gradient of the focal loss on the batch is missing or 0.

    What logvar alone depends on is not among them: where z is mu, the loss does not ask for it.
    """
    model, adapter = patient.model, patient.adapter
    inputs, targets = patient.inputs(), patient.targets()
    ignored = NO_LABEL if patient.ignore_index is None else patient.ignore_index
    # unit weights and gamma 0: a gradient that only the loss takes away is no matter of the layer
    objective = Objective(torch.ones(adapter.classes, device=patient.device), 0.0, "batch", ignored, patient.backend)
    noise = None
    if adapter.ours:
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(len(targets), _latent(patient), generator=generator).to(patient.device)
    model.train()
    with torch.random.fork_rng(devices=[patient.device] if patient.device.type == "cuda" else []), torch.enable_grad():
        torch.manual_seed(patient.seed)
        logits, mu, logvar = adapter.outputs(model, inputs, noise)
        reached = _reached(model, objective(logits, targets, None, None, 0.0).total)
        if mu is not None and logvar is not None:
            reached |= _reached(model, logvar.sum()) - _reached(model, mu.square().sum())
    return {name for name, _ in model.named_parameters()} - reached


def _reached(model: nn.Module, value: Tensor) -> set[str]:
    """The names of the parameters for which the gradient of `value` is anything but 0."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not value.requires_grad:
        return set()
    found = torch.autograd.grad(value, [p for _, p in named], retain_graph=True, allow_unused=True)
    # a gradient that is not finite is one
    return {name for (name, _), g in zip(named, found, strict=True) if g is not None and not bool((g == 0).all())}


def _latent(patient: FailedRun) -> int:
    size = getattr(patient.model, "latent_dim", None)
    assert isinstance(size, int)  # a BetaVAE has it
    return size
