"""Gradient flow: the parameters without a gradient at the start of a run, under two initialisations."""

from __future__ import annotations

import torch

from ..environment.determinism import normal_noise, seeded
from ..model.beta_vae import BetaVAE
from ..model.gradient_reach import reached
from ..objective.objective import NO_LABEL, Objective
from .failed_run import FailedRun
from .model_probes import logits_with_hooks


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
        found = reached(model, objective(logits, targets, None, None, 0.0).total)
        if mu is not None and logvar is not None:
            found |= reached(model, logvar.sum()) - reached(model, mu.square().sum())
    return {name for name, _ in model.named_parameters()} - found
