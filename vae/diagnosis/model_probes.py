"""Probes of a failed model without training: its latent, its units and its logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..environment.determinism import normal_noise
from ..metrics.diagnosis import Finding
from ..model.beta_vae import MU_LIMIT, BetaVAE
from ..model.state import evaluating
from .failed_run import FailedRun

SAME = 1e-6
"""Logits are equal if they differ by less than this share of their size."""
TRACE = 1e-3
"""Logits that vary less than this share of what mu varies do not depend on mu."""
SUM_TO_1 = 1e-4
FAINT = 1e-2
"""Logits of this size give every class nearly the same probability."""
SATURATED = 0.5
DEAD = 0.5
"""Shares of units that are suspicious, or more."""


@dataclass(frozen=True)
class Spread:
    """Variation from grid to grid: root mean square of the deviation from the batch mean, divided by that of all."""

    mu: float | None
    """None if the model gives no mu."""
    logits: float

    @property
    def follows(self) -> bool:
        """True if the logits differ from grid to grid by more than a trace of the variation of mu."""
        return not self.logits <= max(SAME, TRACE * (self.mu or 0.0))  # logits that are nan show nothing


def spread(failed: FailedRun) -> Spread:
    """Return the variation of mu and of the logits over the grids of the batch."""
    logits, mu = _outputs(failed)
    return Spread(None if mu is None else _relative_spread(mu), _relative_spread(logits))


def latent_finding(failed: FailedRun) -> Finding | None:
    """Return the effect of zeroing and shuffling z on the reconstruction; None if z cannot be set."""
    changed = latent_use(failed)
    if changed is None:
        return None
    zeroed, shuffled = changed
    words = f"zeroed, it changes {100 * zeroed:.1f} % of the cells; shuffled across the batch, {100 * shuffled:.1f} %"
    return Finding("use of the latent", words, suspicious=shuffled == 0)


def latent_use(failed: FailedRun) -> tuple[float, float] | None:
    """Return the shares of predicted cells that change if z = mu is zeroed, and if z is shuffled across the batch.

    None if the model has no `decode` that maps mu to its logits, and for a batch of one grid.
    """
    logits, mu = _outputs(failed)
    if mu is None or len(logits) < 2:
        return None
    tries = [_decoded(failed, z) for z in (mu, torch.zeros_like(mu), mu.roll(1, dims=0))]
    found = [t for t in tries if t is not None and t.shape == logits.shape]
    close = 1e-4 * float(logits.abs().max())
    if len(found) < len(tries) or not torch.allclose(found[0], logits, rtol=1e-4, atol=close):
        return None

    def changed(other: Tensor) -> float:
        # logits, not their argmax: before the first step one class may win everywhere for any z
        if not bool(((other - logits).abs().amax(dim=1) > SAME * logits.abs().max()).any()):
            return 0.0
        return float((other.argmax(dim=1) != logits.argmax(dim=1)).float().mean())

    return changed(found[1]), changed(found[2])


def decoder_reads(failed: FailedRun) -> bool | None:
    """Return True if `decode` gives different logits for different z; None if z cannot be set."""
    _, mu = _outputs(failed)
    if mu is None:
        return None
    logits = _decoded(failed, normal_noise(tuple(mu.shape), 0).to(mu))
    return None if logits is None else _relative_spread(logits) > SAME


def samples_in_training(failed: FailedRun) -> bool:
    """Return True if the logits of one batch differ from call to call in training mode, but not in evaluation mode."""

    def differs() -> bool:
        with torch.no_grad():
            first, second = (failed.adapter.outputs(failed.model, inputs)[0] for _ in range(2))
        return not torch.equal(first, second)

    inputs = failed.inputs()
    with evaluating(failed.model):
        if not differs():
            failed.model.train()
            return differs()
    return False


def saturation_finding(failed: FailedRun) -> Finding | None:
    """Return the share of mu at the limits of the built-in network; None for other models."""
    if not isinstance(failed.model, BetaVAE):
        return None
    _, mu = _outputs(failed)
    assert mu is not None  # a BetaVAE gives it
    share = float((mu.abs() >= MU_LIMIT).float().mean())
    return Finding("saturated mu", f"{100 * share:.1f} % of mu is at its limit of {MU_LIMIT:g}", share > SATURATED)


def logits_finding(failed: FailedRun) -> Finding:
    """Return the range of the logits; suspicious if they look like probabilities, ReLU outputs or nearly zero."""
    logits = _outputs(failed)[0].double()
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


def dead_units_finding(failed: FailedRun) -> Finding | None:
    """Return the `nn.ReLU` layer with the largest share of units that are 0 for the whole batch; None without one."""
    counts: dict[str, tuple[int, int]] = {}

    def count(name: str, output: Tensor) -> None:
        alive = (output > 0).flatten(2).any(dim=2) if output.dim() > 2 else output > 0
        units = alive.any(dim=0)
        counts[name] = (int((~units).sum()), units.numel())

    logits_with_hooks(failed, ((n, m) for n, m in failed.model.named_modules() if isinstance(m, nn.ReLU)), count)
    if not counts:
        return None
    layer, (dead, units) = max(counts.items(), key=lambda item: item[1][0] / item[1][1])
    return Finding("dead units", f"{dead} of {units} units of {layer} answer no grid of the batch", dead / units > DEAD)


def first_not_finite(failed: FailedRun) -> str | None:
    """Return the first called layer whose output on the batch is not finite; None if the logits are finite."""
    found: list[str] = []

    def check(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
            found.append(name)

    leaves = ((n or type(m).__name__, m) for n, m in failed.model.named_modules() if not any(m.children()))
    logits = logits_with_hooks(failed, leaves, check)
    if bool(torch.isfinite(logits).all()):
        return None  # a mask inside the model may be infinite
    return found[0] if found else "forward"


def absent_finding(failed: FailedRun) -> Finding:
    """Return the classes that the targets of the batch do not hold."""
    counts = failed.batch.counts(failed.adapter.classes, failed.ignore_index)
    absent = np.flatnonzero(counts == 0)
    held = f"{len(counts) - len(absent)} of {len(counts)} classes"
    words = f"{held} occur" + (f"; not class {', '.join(map(str, absent[:10].tolist()))}" if absent.size else "")
    return Finding("classes in the batch", words, suspicious=False)


def logits_with_hooks(
    failed: FailedRun, modules: Iterable[tuple[str, nn.Module]], hook: Callable[[str, Any], None]
) -> Tensor:
    """Return the logits of the batch; `hook` gets the name and the output of each of the modules that is called."""
    hooks = [m.register_forward_hook(lambda *call, name=name: hook(name, call[2])) for name, m in modules]
    try:
        return _outputs(failed)[0]
    finally:
        for registered in hooks:
            registered.remove()


def _outputs(failed: FailedRun) -> tuple[Tensor, Tensor | None]:
    """Return logits and mu of the batch in evaluation mode."""
    with evaluating(failed.model), torch.no_grad():
        logits, mu, _ = failed.adapter.outputs(failed.model, failed.inputs())
    return logits, mu


def _decoded(failed: FailedRun, z: Tensor) -> Tensor | None:
    """Return the logits of `model.decode(z)`; None if the model has no such method, or it fails."""
    decode = getattr(failed.model, "decode", None)
    if not callable(decode):
        return None
    with evaluating(failed.model), torch.no_grad():
        try:
            found = decode(z)
        except Exception:  # a user's `decode` with other arguments may raise anything
            return None
    return found if isinstance(found, Tensor) else None


def _relative_spread(values: Tensor) -> float:
    values = values.double()
    return float((values - values.mean(dim=0)).square().mean().sqrt() / values.square().mean().sqrt().clamp_min(1e-300))
