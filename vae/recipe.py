"""Recipe: every setting that a fit depends on, and the recipes that ship."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import wraps
from numbers import Real
from typing import Any, Literal, get_args

from vaefit.cache.errors import SettingError, require, require_range
from vaefit.cache.schemes import Scheme, check_scheme

from .errors import no_argument

Init = Literal["kaiming", "rescaled", "default"]
LatentMode = Literal["mu", "sample"]
WeightSource = Literal["global", "batch", "none"]
FitReduction = Literal["batch", "mean", "sum"]
Optimizer = Literal["adam", "muon"]
LrDecay = Literal["isqrt", "none", "cosine"]
StopWhen = Literal["exact", "target", "never"]

DEFAULT_LR = 2e-3
MAX_POWER = 4.0
MAX_STEPS = 1_000_000_000
MAX_SEED = 2**63 - 1
MAX_BATCH = 1 << 20


def one_of(option: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise SettingError for an option whose value is none of the choices."""
    words = ", ".join(str(choice) for choice in choices if choice is not None)
    require(value in choices, option, value, f"one of {words}")


def is_number(value: object) -> bool:
    """Return True for a finite number."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Recipe:
    """Settings of a fit. `RECIPES` holds those that ship; `dataclasses.replace` changes single fields.

    `optimiser` is an alias of `optimizer`, as an argument and as an attribute.

    Raises SettingError for a value that is wrong by itself; its `where` is the name of the field.
    """

    init: Init | None = "rescaled"
    """None keeps the parameters that the model has."""
    resample: bool = False
    """Draw the B grids of each step from 50 shuffled repeats of the batch, instead of taking all B every step."""
    z: LatentMode = "mu"
    beta: float = 0.0
    beta_ramp: BetaRamp | BetaCycles | None = None
    """Schedule of beta over the steps; replaces `beta`."""
    free_bits: float = 0.0
    """Nats of KL of each latent dimension that cost nothing; without effect where `beta` is 0."""
    gamma: float = 2.0
    weights: WeightSource = "global"
    scheme: Scheme = "sqrt_inverse"
    smooth: float = 1.0
    effective_b: float | None = None
    weights_power: float = 1.0
    """Power of the scheme's weights before they are normalised again; 0 makes all weights equal."""
    reduction: FitReduction = "batch"
    optimizer: Optimizer = "muon"
    """Muon updates the weights of dense layers and convolutions, and Adam the other parameters."""
    lr: float | Literal["auto"] = DEFAULT_LR
    """Adam's rate; with Muon also the root mean square of the entries of a matrix's update. `auto` runs a range test
    (see `range_test`)."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Betas of Adam; the first is also Muon's momentum."""
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
    """Worst class accuracy that MEMORISED requires."""

    def __post_init__(self) -> None:
        one_of("init", self.init, (None, *get_args(Init)))
        one_of("z", self.z, get_args(LatentMode))
        one_of("weights", self.weights, get_args(WeightSource))
        try:
            check_scheme(self.scheme, self.smooth, self.effective_b)
        except SettingError as error:
            field = error.where.removeprefix("--").replace("-", "_")
            raise SettingError(error.what, field, error.got, error.do) from None
        one_of("reduction", self.reduction, get_args(FitReduction))
        one_of("optimizer", self.optimizer, get_args(Optimizer))
        one_of("lr_decay", self.lr_decay, get_args(LrDecay))
        one_of("stop_when", self.stop_when, get_args(StopWhen))
        power = is_number(self.weights_power) and 0 <= self.weights_power <= MAX_POWER
        require(power, "weights_power", self.weights_power, f"a number from 0 to {MAX_POWER:g}")
        numbers = {"beta": self.beta, "free_bits": self.free_bits, "gamma": self.gamma, "clip": self.clip}
        for name, value in numbers.items():
            require(is_number(value) and value >= 0, name, value, "a finite number >= 0")
        rate = self.lr == "auto" or (is_number(self.lr) and self.lr > 0)
        require(rate, "lr", self.lr, "a finite number > 0, or auto")
        pair = isinstance(self.betas, (tuple, list)) and len(self.betas) == 2
        require(
            pair and all(is_number(b) and 0 <= b < 1 for b in self.betas), "betas", self.betas, "two numbers in [0, 1)"
        )
        ramp = self.beta_ramp is None or isinstance(self.beta_ramp, (BetaRamp, BetaCycles))
        require(ramp, "beta_ramp", self.beta_ramp, "BetaRamp(warmup, ramp, maximum), or None")
        require_range("warmup", self.warmup, 0, MAX_STEPS)
        require_range("decay_steps", self.decay_steps, 1, MAX_STEPS)
        require_range("iterations", self.iterations, 0, MAX_STEPS)
        require(is_number(self.target) and 0 < self.target <= 1, "target", self.target, "a share in (0, 1]")

    def beta_at(self, step: int) -> float:
        """Return beta of the update after `step` updates."""
        return self.beta if self.beta_ramp is None else self.beta_ramp.at(step)

    @property
    def largest_beta(self) -> float:
        """beta at the end of its schedule, or the constant beta."""
        return self.beta if self.beta_ramp is None else self.beta_ramp.maximum

    @property
    def optimiser(self) -> Optimizer:
        """Alias of `optimizer`."""
        return self.optimizer

    @property
    def rate(self) -> float:
        """`lr` as a number; only after a range test has replaced `auto`."""
        assert not isinstance(self.lr, str)
        return self.lr

    def lr_at(self, step: int) -> float:
        """Return the learning rate of the update after `step` updates."""
        lr = self.rate * min(1.0, (step + 1) / self.warmup) if self.warmup else self.rate
        if self.lr_decay == "isqrt":
            return lr / math.sqrt(1.0 + step / self.decay_steps)
        if self.lr_decay == "cosine":
            return lr * 0.5 * (1.0 + math.cos(math.pi * step / max(self.iterations, 1)))
        return lr


def _accept_alias() -> None:
    """Let `Recipe(optimiser=...)` and `replace(recipe, optimiser=...)` set the field `optimizer`."""
    generated: Any = Recipe.__init__

    @wraps(generated)
    def init(self: Recipe, *values: Any, **named: Any) -> None:
        if "optimiser" in named:
            named["optimizer"] = named.pop("optimiser")
        known = Recipe.__dataclass_fields__
        for name in named:
            if name not in known:
                raise TypeError(no_argument("Recipe()", name, known))
        generated(self, *values, **named)

    Recipe.__init__ = init  # type: ignore[method-assign]


_accept_alias()

RECIPES: dict[str, Recipe] = {
    "default": Recipe(),
    "adam": Recipe(optimizer="adam", warmup=10, decay_steps=50),
    "classic": Recipe(
        init="default",
        resample=True,
        z="sample",
        reduction="mean",
        optimizer="adam",
        lr=5e-4,
        betas=(0.9, 0.999),
        warmup=0,
        lr_decay="none",
        stop_when="never",
    ),
}


def for_foreign(recipe: Recipe, init: Init | None = None, lr: float | str | None = None, **_: Any) -> Recipe:
    """Return the recipe for a user's model: it keeps its own parameters, and a range test chooses the rate.

    `init` and `lr` are the values that the user requested; a requested value does not change.
    """
    rate = recipe.lr if lr is not None else "auto"
    return replace(recipe, init=recipe.init if init is not None else None, lr=rate)


def recipe_with(name: str, recipes: Mapping[str, Recipe] = RECIPES, **changes: Any) -> Recipe:
    """Return the recipe `name` with the changes that are not None.

    Raises SettingError, which names the option of the command, for an unknown name or a wrong value.
    """
    one_of("--recipe", name, tuple(recipes))
    return recipe_from_options(recipes[name], {k: v for k, v in changes.items() if v is not None})


def recipe_from_options(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Return the recipe with the changes; a SettingError names the option of the command, not the field."""
    try:
        return replace(recipe, **changes)
    except SettingError as error:
        option = f"--{error.where.replace('_', '-')}"
        raise SettingError(error.what, option, error.got, error.do) from error


STEPS_PER_EPOCH = 10
"""Steps of an epoch of `BetaRamp`, which counts epochs of one batch."""
MOST_CYCLES = 1_000_000


@dataclass(frozen=True)
class BetaRamp:
    """Schedule of beta: 0 for `warmup` epochs of 10 steps, then linear over `ramp` epochs to `maximum`.

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
        """Return beta of the update after `step` updates."""
        epochs = step / STEPS_PER_EPOCH - self.warmup
        if epochs <= 0:
            return 0.0
        return self.maximum * min(1.0, epochs / self.ramp) if self.ramp > 0 else self.maximum


@dataclass(frozen=True)
class BetaCycles:
    """Cyclical schedule of beta: `cycles` times in `steps` steps linear from 0 to `maximum`, then constant.

    Each cycle rises over its first half: Fu et al. 2019, "Cyclical annealing schedule: a simple approach to mitigating
    KL vanishing", with their R = 0.5. After the last cycle beta stays at `maximum`.

    Raises SettingError for a number that is out of range.
    """

    steps: int
    cycles: int
    maximum: float

    def __post_init__(self) -> None:
        require_range("--beta-cycles", self.cycles, 1, MOST_CYCLES)
        require(math.isfinite(self.maximum) and self.maximum >= 0, "--beta", self.maximum, "a finite number >= 0")

    def at(self, step: int) -> float:
        """Return beta of the update after `step` updates."""
        if step >= self.steps:
            return self.maximum
        within = (step * self.cycles % self.steps) / self.steps
        return self.maximum * min(1.0, 2.0 * within)
