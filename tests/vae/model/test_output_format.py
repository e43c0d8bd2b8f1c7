"""Logits, mu and logvar are found in any output, or the run says that they were not."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import make_dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Independent, Laplace, Normal

from vaefit.vae import Recipe, overfit
from vaefit.vae.errors import RunError
from vaefit.vae.model.output_format import output_form
from vaefit.vae.objective.objective import kl_divergence
from vaefit.vae.recipe import BetaRamp

B, C, H, W, LATENT = 4, 3, 5, 6, 16
LABELS = np.random.default_rng(0).integers(0, C, (B, H, W))
BETA = Recipe(init=None, lr=1e-3, beta=0.5, iterations=1, stop_when="never")


class Vae(nn.Module):
    """Variational autoencoder of one-hot grids; `give` makes its output of input, logits, z, mu and logvar."""

    def __init__(self, give: Callable[..., Any], samples: bool = True, spatial: bool = False) -> None:
        super().__init__()
        self.give, self.samples, self.spatial = give, samples, spatial
        self.mu, self.logvar = nn.Linear(C * H * W, LATENT), nn.Linear(C * H * W, LATENT)
        self.out = nn.Linear(LATENT, C * H * W)

    def forward(self, x: Tensor) -> Any:
        mu, logvar = self.mu(x.flatten(1)), self.logvar(x.flatten(1))
        noise = torch.randn_like(mu) if self.samples or self.training else 0.0
        z = mu + (logvar / 2).exp() * noise
        logits = self.out(z).view(-1, C, H, W)
        if self.spatial:
            z, mu, logvar = (part.view(-1, 1, 1, LATENT) for part in (z, mu, logvar))
        return self.give(x, logits, z, mu, logvar)


def _dataclass(**parts: Any) -> Any:
    return make_dataclass("Output", parts)(**parts)


def _named_tuple(**parts: Any) -> Any:
    return namedtuple("Output", parts)(**parts)  # type: ignore[misc]


NAMED: dict[str, Callable[..., Any]] = {
    "dict": dict,
    "dataclass": _dataclass,
    "named tuple": _named_tuple,
    "object": SimpleNamespace,
    "nested": lambda **parts: (parts.pop("recon"), parts),
}
SPREADS = {
    "logvar": lambda logvar: logvar,
    "z_log_var": lambda logvar: logvar,
    "log_sigma": lambda logvar: logvar / 2,
    "std": lambda logvar: (logvar / 2).exp(),
    "sigma_z": lambda logvar: (logvar / 2).exp(),
    "variance": torch.exp,
}


def _check_divergence(model: Vae) -> None:
    """Check the loss of the first step: beta times the divergence of the model's own mu and logvar is in it."""
    hot = nn.functional.one_hot(torch.from_numpy(LABELS), C).permute(0, 3, 1, 2).float().flatten(1)
    with torch.no_grad():
        expected = kl_divergence(model.mu(hot), model.logvar(hot), "batch").item()
    first = overfit(model, LABELS, recipe=BETA).history[0]
    assert first.kl == pytest.approx(expected, rel=1e-4)
    assert first.loss == pytest.approx(first.focal + 0.5 * expected, rel=1e-4)


@settings(max_examples=30)
@given(
    st.sampled_from(sorted(NAMED)),
    st.sampled_from(sorted(SPREADS)),
    st.permutations(["input", "recon", "z", "mu", "spread", "loss"]),
    st.sets(st.sampled_from(["input", "z", "loss"])),
    st.booleans(),
)
def test_parts_with_names_are_found_in_any_order(
    kind: str, spread: str, order: list[str], absent: set[str], samples: bool
) -> None:
    def give(x: Tensor, logits: Tensor, z: Tensor, mu: Tensor, logvar: Tensor) -> Any:
        parts = {"input": x, "recon": logits, "z": z, "mu": mu, "spread": SPREADS[spread](logvar), "loss": mu.sum()}
        return NAMED[kind](**{spread if n == "spread" else n: parts[n] for n in order if n not in absent})

    _check_divergence(Vae(give, samples))


@settings(max_examples=30)
@given(
    st.permutations(["input", "recon", "z", "mu", "logvar", "loss"]),
    st.sets(st.sampled_from(["input", "z", "loss"])),
    st.sampled_from([list, tuple]),
    st.booleans(),
)
def test_parts_without_names_are_found_by_what_they_are(
    order: list[str], absent: set[str], kind: type, samples: bool
) -> None:
    def give(x: Tensor, logits: Tensor, z: Tensor, mu: Tensor, logvar: Tensor) -> Any:
        parts = {"input": x, "recon": logits, "z": z, "mu": mu, "logvar": logvar, "loss": mu.sum()}
        return kind(parts[name] for name in order if name not in absent)

    # that mu comes before logvar is a convention; z that equals mu lies outside the two
    latent = [n for n in order if n in {"z", "mu", "logvar"} - absent and (n != "z" or not samples)]
    if latent.index("mu") > latent.index("logvar") or latent[1:2] == ["z"]:
        order = ["recon", "input", "z", "mu", "logvar", "loss"]
    _check_divergence(Vae(give, samples))


@pytest.mark.parametrize(
    ("give", "words"),
    [
        (lambda x, a, z, m, v: [a, x, m, v], "logits at 0 of a list, mu at 2 and logvar at 3"),
        (lambda x, a, z, m, v: (x, a, m, v), "logits at 1 of a tuple, mu at 2 and logvar at 3"),
        (lambda x, a, z, m, v: (a, (m, v)), "mu at '1.0' and logvar at '1.1'"),
        (lambda x, a, z, m, v: (a, Normal(m, (v / 2).exp())), "mu at '1.loc' and std at '1.scale'"),
        (lambda x, a, z, m, v: {"logits": a, "q": Independent(Normal(m, (v / 2).exp()), 1)}, "mu at 'q.loc'"),
        (
            lambda x, a, z, m, v: {"recon": a, "prior": {"mu": 0 * m, "logvar": 0 * v}, "mu": m, "var": v.exp()},
            "mu at 'mu' and variance at 'var'",
        ),
        (
            lambda x, a, z, m, v: SimpleNamespace(
                sample=a, posterior=SimpleNamespace(mean=m, std=(v / 2).exp(), var=v.exp(), logvar=v)
            ),
            "mu at 'posterior.mean' and logvar at 'posterior.logvar'",
        ),
    ],
)
@pytest.mark.parametrize("spatial", [False, True])
def test_outputs_of_known_models(give: Callable[..., Any], words: str, spatial: bool) -> None:
    model = Vae(give, spatial=spatial)
    _check_divergence(model)
    assert words in str(overfit(model, LABELS, recipe=BETA).start.adapter)


UNKNOWN: dict[str, Callable[..., Any]] = {
    "no latent": lambda x, a, z, m, v: a,
    "mu alone": lambda x, a, z, m, v: (a, m),
    "z and mu": lambda x, a, z, m, v: (a, z, m),
    "another name": lambda x, a, z, m, v: {"recon": a, "mu": m, "uncertainty": v},
    "two posteriors": lambda x, a, z, m, v: {"recon": a, "a": {"mu": m, "logvar": v}, "b": {"mu": m, "logvar": v}},
    "std or variance": lambda x, a, z, m, v: (a, m, v.exp()),
    "another distribution": lambda x, a, z, m, v: (a, Laplace(m, v.exp())),
    "two pairs of features": lambda x, a, z, m, v: (a, m, v, m[:, :1], v[:, :1]),
}


@pytest.mark.parametrize("name", UNKNOWN)
@pytest.mark.parametrize("samples", [False, True])
def test_beta_without_mu_and_logvar_is_refused(name: str, samples: bool) -> None:
    model = Vae(UNKNOWN[name], samples)
    assert overfit(model, LABELS, recipe=Recipe(init=None, lr=1e-3, iterations=1)).history[0].kl is None
    for setting in ({"beta": 1.0}, {"beta_ramp": BetaRamp(0, 1, 1.0)}, {"free_bits": 0.1}):
        with pytest.raises(
            RunError, match=r"^Vae: beta and free bits need mu and logvar, which were not found .*names"
        ):
            overfit(model, LABELS, recipe=Recipe(init=None, **setting))


@settings(max_examples=30)
@given(
    st.lists(
        st.sampled_from(
            [(), (B,), (B, 1), (B, 2), (B, 2), (B, C, H, W), (B, C, H, W), (B, 1, H, W), (B, H, W), (2, C, H, W)]
        ),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([list, tuple, lambda parts: dict(enumerate(parts)), lambda parts: {"a": parts, "b": None}]),
    st.integers(0, 5),
)
def test_an_output_of_any_tensors_has_logits_or_none(
    shapes: list[tuple[int, ...]], make: Callable[[list[Tensor]], Any], place: int
) -> None:
    inputs = torch.eye(C)[torch.from_numpy(LABELS)].permute(0, 3, 1, 2)
    parts = [torch.randn(shape) for shape in shapes]
    parts.insert(place, inputs)
    output = make(parts)
    found = output_form(output, output, inputs, (B, H, W))
    assert found is not None
    logits, mu, logvar = found.read(output)
    assert logits.dim() == 4
    assert (logits is inputs) == all(t is inputs or t.dim() < 4 or len(t) != B for t in parts)
    assert (mu is None) == (logvar is None)
    assert mu is None or (mu.shape == logvar.shape and not any(t is inputs or t is logits for t in (mu, logvar)))
