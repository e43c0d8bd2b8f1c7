"""Gradient flow: the parameters without a gradient at the start of a run, under two initialisations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..environment.determinism import normal_noise, seeded
from ..model.beta_vae import BetaVAE
from ..objective.objective import NO_LABEL, Objective
from .failed_run import FailedRun
from .model_probes import logits_with_hooks

NAMED = 3
"""Layers that a text names. It counts the others."""


def blocked_parameters(failed: FailedRun) -> tuple[str, ...]:
    """Return the parameters without a gradient both at the start and after the rescaled initialisation.

    A gradient that is 0 only at the start, as below a layer of zeros, is a fault of the initialisation. A parameter
    whose gradient is still 0 after the other initialisation is cut off, frozen or unused.
    """
    failed.start(failed.recipe.init)
    blocked = _without_gradient(failed)
    if blocked:
        failed.start("rescaled")
        blocked &= _without_gradient(failed)
    return tuple(name for name, _ in failed.model.named_parameters() if name in blocked)


def cut_off(failed: FailedRun, blocked: tuple[str, ...]) -> tuple[str, ...]:
    """Return the blocked parameters that are not frozen and whose layer is called: their gradient is cut by mistake."""
    called: set[str] = set()
    logits_with_hooks(failed, failed.model.named_modules(), lambda name, _: called.add(name))
    learning = {name for name, p in failed.model.named_parameters() if p.requires_grad}
    return tuple(name for name in blocked if name in learning and name.rpartition(".")[0] in called)


def layers_of(parameters: tuple[str, ...], model: nn.Module) -> str:
    """Return the names of the largest parts of the model that hold only these parameters."""
    every = [name for name, _ in model.named_parameters()]
    left = set(parameters)
    names: list[str] = []
    while left:
        first = next(name for name in every if name in left)
        pieces = first.split(".")
        for depth in range(1, len(pieces) + 1):
            part = ".".join(pieces[:depth])
            inside = {name for name in every if name == part or name.startswith(part + ".")}
            if inside <= left or depth == len(pieces):
                names.append(part)
                left -= inside
                break
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _without_gradient(failed: FailedRun) -> set[str]:
    """Return the names of the parameters whose gradient of the focal loss on the batch is missing or 0.

    Parameters that only logvar depends on are left out: with z = mu the loss does not depend on logvar.
    """
    model, adapter = failed.model, failed.adapter
    inputs, targets = failed.inputs(), failed.targets()
    ignored = NO_LABEL if failed.ignore_index is None else failed.ignore_index
    # unit weights and gamma 0: a gradient that only the loss removes is no fault of the layer
    weight = torch.ones(adapter.classes, dtype=torch.float32, device=failed.device)
    objective = Objective(weight, 0.0, "batch", ignored, failed.backend)
    noise = None
    if adapter.ours:
        assert isinstance(model, BetaVAE)  # the only model of our own
        noise = normal_noise((len(targets), model.latent_dim), 0).to(failed.device)
    model.train()
    with seeded(failed.seed, failed.device), torch.enable_grad():
        logits, mu, logvar = adapter.outputs(model, inputs, noise)
        reached = _reached(model, objective(logits, targets, None, None, 0.0).total)
        if mu is not None and logvar is not None:
            reached |= _reached(model, logvar.sum()) - _reached(model, mu.square().sum())
    return {name for name, _ in model.named_parameters()} - reached


def _reached(model: nn.Module, value: Tensor) -> set[str]:
    """Return the names of the parameters whose gradient of `value` is not 0; a gradient that is not finite counts."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not value.requires_grad:
        return set()
    found = torch.autograd.grad(value, [p for _, p in named], retain_graph=True, allow_unused=True)
    return {name for (name, _), g in zip(named, found, strict=True) if g is not None and not bool((g == 0).all())}
