"""The settings of a run: every knob, and the recipes that set them all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from vaefit.cache.errors import require, require_range
from vaefit.cache.schemes import Scheme, check_scheme

Init = Literal["kaiming", "rescaled", "default"]
LatentMode = Literal["mu", "sample"]
WeightSource = Literal["global", "batch", "none"]
FitReduction = Literal["batch", "mean", "sum"]
Optimiser = Literal["adam", "muon"]
LrDecay = Literal["isqrt", "none", "cosine"]
StopWhen = Literal["exact", "target", "never"]

DEFAULT_LR = 2e-3
MAX_POWER = 4.0
MAX_STEPS = 1_000_000_000
MAX_SEED = 2**63 - 1
MAX_BATCH = 1 << 20


def one_of(option: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise the SettingError of an option whose value is none of the choices."""
    words = ", ".join(str(choice) for choice in choices if choice is not None)
    require(value in choices, option, value, f"one of {words}")


@dataclass(frozen=True)
class Recipe:
    """How a model is fitted. `RECIPES` holds those that ship; `dataclasses.replace` changes single knobs.

    Raises SettingError for a value that is wrong by itself.
    """

    init: Init | None = "rescaled"
    """None keeps the parameters that the model comes with."""
    resample: bool = False
    """Draw the B grids of each step from 50 shuffled repeats of the batch, instead of taking all B every step."""
    z: LatentMode = "mu"
    beta: float = 0.0
    beta_ramp: BetaRamp | BetaCycles | None = None
    """How beta changes over the steps; takes the place of `beta`."""
    free_bits: float = 0.0
    """Nats of KL a latent dimension that cost nothing; with `beta` 0 it means nothing."""
    gamma: float = 2.0
    weights: WeightSource = "global"
    scheme: Scheme = "sqrt_inverse"
    smooth: float = 1.0
    effective_b: float | None = None
    weights_power: float = 1.0
    """Power that the scheme's weights are raised to before they are normalised again; 0 makes them all alike."""
    reduction: FitReduction = "batch"
    optimiser: Optimiser = "muon"
    """Muon moves the weights of dense layers and convolutions, and leaves the other parameters to Adam."""
    lr: float | Literal["auto"] = DEFAULT_LR
    """Adam's rate; with Muon also the root mean square of the entries of a matrix's update. `auto` takes that of a
    range test (see `range_test`)."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Adam's; the first is Muon's momentum too."""
    warmup: int = 5
    """Steps over which the rate rises linearly."""
    lr_decay: LrDecay = "isqrt"
    decay_steps: int = 10
    """Steps after which the rate of `isqrt` has fallen to 1/sqrt(2)."""
    clip: float = 1.0
    """Largest gradient norm; 0 does not clip."""
    stop_when: StopWhen = "exact"
    iterations: int = 500
    target: float = 0.95
    """Worst class accuracy that MEMORISED asks for."""

    def __post_init__(self) -> None:
        one_of("--init", self.init, (None, *get_args(Init)))
        one_of("--z", self.z, get_args(LatentMode))
        one_of("--weights", self.weights, get_args(WeightSource))
        check_scheme(self.scheme, self.smooth, self.effective_b)
        one_of("--reduction", self.reduction, get_args(FitReduction))
        one_of("--optimiser", self.optimiser, get_args(Optimiser))
        one_of("--lr-decay", self.lr_decay, get_args(LrDecay))
        one_of("--stop-when", self.stop_when, get_args(StopWhen))
        power = math.isfinite(self.weights_power) and 0 <= self.weights_power <= MAX_POWER
        require(power, "--weights-power", self.weights_power, f"a number from 0 to {MAX_POWER:g}")
        numbers = {"--beta": self.beta, "--free-bits": self.free_bits, "--gamma": self.gamma, "--clip": self.clip}
        for option, value in numbers.items():
            require(math.isfinite(value) and value >= 0, option, value, "a finite number >= 0")
        number = not isinstance(self.lr, str) and math.isfinite(self.lr) and self.lr > 0
        require(number or self.lr == "auto", "--lr", self.lr, "a finite number > 0, or auto")
        require(all(0 <= b < 1 for b in self.betas), "--betas", self.betas, "two numbers in [0, 1)")
        require_range("--warmup", self.warmup, 0, MAX_STEPS)
        require_range("--decay-steps", self.decay_steps, 1, MAX_STEPS)
        require_range("--iterations", self.iterations, 0, MAX_STEPS)
        require(0 < self.target <= 1, "--target", self.target, "a share in (0, 1]")

    def beta_at(self, step: int) -> float:
        """beta of the update that follows `step` updates."""
        return self.beta if self.beta_ramp is None else self.beta_ramp.at(step)

    @property
    def largest_beta(self) -> float:
        """beta at the end of its schedule, or as it is throughout."""
        return self.beta if self.beta_ramp is None else self.beta_ramp.maximum

    @property
    def rate(self) -> float:
        """`lr` as a number; only once a range test has replaced `auto`."""
        assert not isinstance(self.lr, str)
        return self.lr

    def lr_at(self, step: int) -> float:
        """Learning rate of the update that follows `step` updates."""
        lr = self.rate * min(1.0, (step + 1) / self.warmup) if self.warmup else self.rate
        if self.lr_decay == "isqrt":
            return lr / math.sqrt(1.0 + step / self.decay_steps)
        if self.lr_decay == "cosine":
            return lr * 0.5 * (1.0 + math.cos(math.pi * step / max(self.iterations, 1)))
        return lr


RECIPES: dict[str, Recipe] = {
    "default": Recipe(),
    "adam": Recipe(optimiser="adam", warmup=10, decay_steps=50),
    "classic": Recipe(
        init="default",
        resample=True,
        z="sample",
        reduction="mean",
        optimiser="adam",
        lr=5e-4,
        betas=(0.9, 0.999),
        warmup=0,
        lr_decay="none",
        stop_when="never",
    ),
}


def for_foreign(recipe: Recipe, init: Init | None = None, lr: float | str | None = None, **_: Any) -> Recipe:
    """The recipe for a model that is not ours: it keeps its own parameters, and a range test chooses the rate.

    `init` and `lr` are what was asked for, and stay as they are.
    """
    rate = recipe.lr if lr is not None else "auto"
    return replace(recipe, init=recipe.init if init is not None else None, lr=rate)


def recipe_with(name: str, recipes: Mapping[str, Recipe] = RECIPES, **changes: Any) -> Recipe:
    """The recipe `name` with the changes that are not None; SettingError for an unknown name or a wrong value."""
    one_of("--recipe", name, tuple(recipes))
    return replace(recipes[name], **{k: v for k, v in changes.items() if v is not None})


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
