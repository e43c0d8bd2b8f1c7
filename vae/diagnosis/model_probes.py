"""What is measured on the failed model itself: its latent, its units, the classes and the pairs of the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..metrics.accuracy import Labels
from ..metrics.diagnosis import Finding
from ..model.beta_vae import MU_LIMIT, BetaVAE
from ..model.state import evaluating
from .failed_run import FailedRun

SAME = 1e-6
"""Logits that differ by less than this share of their size are the same."""
TRACE = 1e-3
"""Logits that follow mu by less than this are fed something else."""
SUM_TO_1 = 1e-4
FAINT = 1e-2
"""Logits of this size tell nothing apart: every class has the same probability."""
SATURATED = 0.5
DEAD = 0.5
"""Shares of units from which on they are suspicious."""


@dataclass(frozen=True)
class Spread:
    """How much differs from grid to grid: root mean square of the deviation from the batch mean, over that of all."""

    mu: float | None
    """None where the model gives no mu."""
    logits: float

    @property
    def follows(self) -> bool:
        """The logits differ from grid to grid, and not just by a trace of what mu does."""
        return not self.logits <= max(SAME, TRACE * (self.mu or 0.0))  # what is not a number shows nothing


def spread(patient: FailedRun) -> Spread:
    """How far mu and the logits of the model as it is tell the grids of the batch apart."""
    with evaluating(patient.model), torch.no_grad():
        logits, mu, _ = patient.adapter.outputs(patient.model, patient.inputs())
    return Spread(None if mu is None else _relative_spread(mu), _relative_spread(logits))


def _relative_spread(values: Tensor) -> float:
    values = values.double()
    return float((values - values.mean(dim=0)).square().mean().sqrt() / values.square().mean().sqrt().clamp_min(1e-300))


def latent_finding(patient: FailedRun) -> Finding | None:
    """What zeroing z and shuffling it across the batch does to the reconstruction; None where no latent can be set."""
    changed = latent_use(patient)
    if changed is None:
        return None
    zeroed, shuffled = changed
    words = f"zeroed, it changes {100 * zeroed:.1f} % of the cells; shuffled across the batch, {100 * shuffled:.1f} %"
    return Finding("use of the latent", words, suspicious=shuffled == 0)


def latent_use(patient: FailedRun) -> tuple[float, float] | None:
    """Share of predicted cells that change when z = mu is zeroed, and when it is shuffled across the batch.

    For a model with `decode`, which gives the logits of z = mu back; None for others, and for a batch of one.
    """
    decode = getattr(patient.model, "decode", None)
    if not callable(decode) or not patient.adapter.gives.latent or len(patient.batch.grids) < 2:
        return None
    with evaluating(patient.model), torch.no_grad():
        logits, mu, _ = patient.adapter.outputs(patient.model, patient.inputs())
        assert mu is not None  # the form has a latent
        try:
            tries = [decode(z) for z in (mu, torch.zeros_like(mu), mu.roll(1, dims=0))]
        except Exception:  # a `decode` that takes something else than z may raise anything, and shows nothing
            return None
    if not all(isinstance(t, Tensor) and t.shape == logits.shape for t in tries):
        return None
    if not torch.allclose(tries[0], logits, rtol=1e-4, atol=1e-4 * float(logits.abs().max())):
        return None
    # logits, not their argmax: before the first step one class may win everywhere whatever z is
    moved = [(t - logits).abs().amax(dim=1) > SAME * logits.abs().max() for t in tries[1:]]
    guesses = logits.argmax(dim=1)
    return tuple(  # type: ignore[return-value]
        float((t.argmax(dim=1) != guesses).float().mean()) if bool(m.any()) else 0.0
        for t, m in zip(tries[1:], moved, strict=True)
    )


def decoder_reads(patient: FailedRun) -> bool | None:
    """True where `decode` gives other logits for other z; None for a model without a latent or without `decode`."""
    decode = getattr(patient.model, "decode", None)
    if not callable(decode) or not patient.adapter.gives.latent:
        return None
    with evaluating(patient.model), torch.no_grad():
        _, mu, _ = patient.adapter.outputs(patient.model, patient.inputs())
        assert mu is not None  # the form has a latent
        try:
            found = decode(torch.randn(mu.shape, generator=torch.Generator().manual_seed(0)).to(mu))
        except Exception:  # a `decode` that takes something else than z may raise anything, and shows nothing
            return None
    return isinstance(found, Tensor) and _relative_spread(found) > SAME


def samples_in_training(patient: FailedRun) -> bool:
    """True where the logits of one batch differ from call to call in training, but not in evaluation."""

    def twice() -> bool:
        with torch.no_grad():
            first, second = (patient.adapter.outputs(patient.model, inputs)[0] for _ in range(2))
        return not torch.equal(first, second)

    inputs = patient.inputs()
    with evaluating(patient.model):
        if not twice():
            patient.model.train()
            return twice()
    return False


def saturation_finding(patient: FailedRun) -> Finding | None:
    """How much of mu stands at its limits, where our own network clamps it."""
    if not isinstance(patient.model, BetaVAE):
        return None
    with evaluating(patient.model), torch.no_grad():
        mu, _ = patient.model.encode(patient.inputs())
    share = float((mu.abs() >= MU_LIMIT).float().mean())
    return Finding("saturated mu", f"{100 * share:.1f} % of mu is at its limit of {MU_LIMIT:g}", share > SATURATED)


def logits_finding(patient: FailedRun) -> Finding:
    """Whether the logits look like something else: probabilities, what a ReLU left, or next to nothing."""
    logits = _logits(patient).double()
    name, size = "logits", float(logits.square().mean().sqrt())
    low, high = float(logits.min()), float(logits.max())
    if low >= 0 and bool(((logits.sum(dim=1) - 1).abs() < SUM_TO_1).all()):
        return Finding(name, f"they sum to 1 over the classes, from {low:.2g} to {high:.2g}: a softmax?", True)
    zeros = float((logits == 0).double().mean())
    if low >= 0 and zeros > 0.5:
        return Finding(name, f"none is negative, and {100 * zeros:.0f} % of them are 0: a ReLU?", True)
    if low >= 0 and high <= 1:
        return Finding(name, f"they all lie between 0 and 1, from {low:.2g} to {high:.2g}: a sigmoid?", True)
    return Finding(name, f"from {low:.3g} to {high:.3g}, root mean square {size:.2g}", size < FAINT)


def dead_units_finding(patient: FailedRun) -> Finding | None:
    """The layer with most units that no grid of the batch wakes; sees `nn.ReLU` modules."""
    counts: dict[str, tuple[int, int]] = {}

    def look(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def count(_: nn.Module, __: Any, output: Tensor) -> None:
            alive = (output > 0).flatten(2).any(dim=2) if output.dim() > 2 else output > 0
            units = alive.any(dim=0)
            counts[name] = (int((~units).sum()), units.numel())

        return count

    hooks = [m.register_forward_hook(look(n)) for n, m in patient.model.named_modules() if isinstance(m, nn.ReLU)]
    try:
        _logits(patient)
    finally:
        for hook in hooks:
            hook.remove()
    if not counts:
        return None
    layer, (dead, of) = max(counts.items(), key=lambda item: item[1][0] / item[1][1])
    return Finding("dead units", f"{dead} of {of} units of {layer} answer no grid of the batch", dead / of > DEAD)


def first_not_finite(patient: FailedRun) -> str | None:
    """The first layer, in the order of the calls, whose output on the batch is not finite; None where all is."""
    found: list[str] = []

    def look(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def check(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
                found.append(name)

        return check

    leaves = [(n, m) for n, m in patient.model.named_modules() if not any(m.children())]
    hooks = [m.register_forward_hook(look(n or type(m).__name__)) for n, m in leaves]
    try:
        logits = _logits(patient)
    finally:
        for hook in hooks:
            hook.remove()
    if bool(torch.isfinite(logits).all()):
        return None  # a mask may be infinite on the way
    return found[0] if found else "forward"


def predictions(patient: FailedRun) -> Labels:
    """(B, H, W), what the model as it is answers."""
    return _logits(patient).argmax(dim=1).cpu().numpy()


def absent_finding(patient: FailedRun) -> Finding:
    """Which classes the targets of the batch do not hold."""
    counts = patient.batch.counts(patient.adapter.classes, patient.ignore_index)
    absent = np.flatnonzero(counts == 0)
    held = f"{len(counts) - len(absent)} of {len(counts)} classes"
    words = f"{held} occur" + (f"; not class {', '.join(map(str, absent[:10].tolist()))}" if absent.size else "")
    return Finding("classes in the batch", words, suspicious=False)


def _logits(patient: FailedRun) -> Tensor:
    with evaluating(patient.model), torch.no_grad():
        return patient.adapter.outputs(patient.model, patient.inputs())[0]
