"""Failing cases with good settings: a network with one fault."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from tests.diagnosis_cases.bad_settings import GOOD, OWN_INIT, vae
from tests.diagnosis_cases.case import Build, Case, seeded_build
from tests.diagnosis_cases.grids import shared
from tests.diagnosis_cases.mlp import (
    Bottleneck,
    CoordinateNet,
    DetachedGate,
    DrownedMean,
    HardCode,
    IntegerScaled,
    MeanOverBatch,
    Mlp,
    RoundedLatent,
    WeakConditioning,
)
from vaefit.vae.model.beta_vae import BetaVAE


def foreign(make: Callable[[], nn.Module]) -> Build:
    """Build a foreign network with its own initialisation and the default recipe."""
    return seeded_build(make, shared, OWN_INIT)


def _freeze_decoder(model: nn.Module) -> None:
    assert isinstance(model, BetaVAE)
    model.decoder.requires_grad_(False)


CASES = (
    Case(
        "labels scaled by an integer division",
        "output collapse",
        None,
        foreign(IntegerScaled),
        foreign(lambda: IntegerScaled(integer=False)),
    ),
    Case(
        "coordinate network without the grid's code",
        "output collapse",
        None,
        foreign(CoordinateNet),
        foreign(lambda: CoordinateNet(conditioned=True)),
    ),
    Case("latent averaged over the batch", "latent ignored", None, foreign(MeanOverBatch), foreign(Mlp)),
    Case("mean drowned in noise", "latent ignored", None, foreign(DrownedMean), foreign(Mlp)),
    Case(
        "z scaled to nothing beside a learned vector",
        "latent ignored",
        None,
        foreign(WeakConditioning),
        foreign(lambda: WeakConditioning(scale=1.0)),
    ),
    Case(
        "detached z behind a gain of zero",
        "no gradient",
        "gain",
        foreign(DetachedGate),
        foreign(lambda: DetachedGate(detach=False)),
    ),
    Case(
        "rounded latent",
        "no gradient",
        "encoder",
        foreign(RoundedLatent),
        foreign(lambda: RoundedLatent(straight=True)),
    ),
    Case("argmax in the latent", "no gradient", "encoder", foreign(HardCode), foreign(lambda: HardCode(soft=True))),
    Case("frozen decoder", "no gradient", "decoder", vae(GOOD, prepare=_freeze_decoder), vae(GOOD)),
    Case(
        "bottleneck of one channel",
        "too little capacity",
        "layers.4",
        foreign(lambda: Bottleneck(1)),
        foreign(lambda: Bottleneck(32)),
    ),
)
