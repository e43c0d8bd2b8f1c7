"""beta over the steps of a run: the schedules of the KL term's weight."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vaefit.cache.errors import require, require_range

STEPS_PER_EPOCH = 10
"""What an epoch means to `BetaRamp`: of one batch, 10 steps."""
MOST_CYCLES = 1_000_000


@dataclass(frozen=True)
class BetaRamp:
    """0 for `warmup` epochs of 10 steps, then linear over `ramp` epochs to `maximum`.

    Raises SettingError for a number that is negative or not finite.
    """

    warmup: float
    ramp: float
    maximum: float

    def __post_init__(self) -> None:
        ramp = (self.warmup, self.ramp, self.maximum)
        ok = all(math.isfinite(v) and v >= 0 for v in ramp)
        require(ok, "--beta-ramp", ramp, "three finite numbers >= 0: warm-up epochs, ramp epochs, largest beta")

    def at(self, step: int) -> float:
        """beta of the update that follows `step` updates."""
        epochs = step / STEPS_PER_EPOCH - self.warmup
        if epochs <= 0:
            return 0.0
        return self.maximum * min(1.0, epochs / self.ramp) if self.ramp > 0 else self.maximum


@dataclass(frozen=True)
class BetaCycles:
    """`cycles` times in `steps` steps: linear from 0 to `maximum` over half of the cycle, then `maximum`.

    Fu et al. 2019, "Cyclical annealing schedule: a simple approach to mitigating KL vanishing", with their R = 0.5.
    After the last cycle it stays at `maximum`. Raises SettingError for other numbers.
    """

    steps: int
    cycles: int
    maximum: float

    def __post_init__(self) -> None:
        require_range("--beta-cycles", self.cycles, 1, MOST_CYCLES)
        require(math.isfinite(self.maximum) and self.maximum >= 0, "--beta", self.maximum, "a finite number >= 0")

    def at(self, step: int) -> float:
        """beta of the update that follows `step` updates."""
        if step >= self.steps:
            return self.maximum
        within = (step * self.cycles % self.steps) / self.steps
        return self.maximum * min(1.0, 2.0 * within)
