"""Settings of a training run, and the recipes for training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from vaefit.cache.errors import require, require_range

from ..loader.loader import MAX_WINDOW, MAX_WORKERS, Mode
from ..recipe import MAX_SEED, MAX_STEPS, Recipe, one_of
from ..settings import RunSettings

Precision = Literal["float32", "bfloat16"]

MAX_EPOCHS = 1_000_000
WINDOW = 1 << 16


@dataclass(frozen=True)
class TrainSettings(RunSettings):
    """Settings of `vaefit-cli train`; the fields have the names of its options.

    The recipe's `iterations` and `beta_ramp` follow from the epochs, once the updates of an epoch are known.
    Raises SettingError for a value that is wrong by itself.
    """

    recipe: Recipe = field(default_factory=lambda: RECIPES["default"])
    batch_size: int = 128
    epochs: int = 5
    limit: int | None = None
    """Grids of the dataset that are used, drawn by `split_seed`; the weights still come from the whole dataset."""
    val_share: float = 0.1
    test_share: float = 0.0
    split_seed: int = 0
    augment: str = "none"
    """See `Augmentation.parse`."""
    beta_warmup: float = 0.0
    """Epochs over which beta rises linearly from 0."""
    beta_cycles: int = 0
    """Number of times that beta rises from 0 over the whole run."""
    patience: int | None = None
    """Validations without a better macro accuracy after which training stops; None never stops early."""
    validate_every: int | None = None
    """Updates between two validations; None validates once an epoch."""
    checkpoint_every: float = 60.0
    """Seconds between two checkpoints; each validation writes one as well."""
    precision: Precision = "float32"
    compile: bool = False
    loader: Mode = "auto"
    workers: int = 1
    window: int = WINDOW

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("--epochs", self.epochs, 1, MAX_EPOCHS)
        require_range("--split-seed", self.split_seed, 0, MAX_SEED)
        one_of("--precision", self.precision, get_args(Precision))
        one_of("--loader", self.loader, get_args(Mode))
        require_range("--workers", self.workers, 1, MAX_WORKERS)
        require_range("--window", self.window, 1, MAX_WINDOW)
        require_range("--beta-cycles", self.beta_cycles, 0, MAX_STEPS)
        for option, value in (("--beta-warmup", self.beta_warmup), ("--checkpoint-every", self.checkpoint_every)):
            require(math.isfinite(value) and value >= 0, option, value, "a finite number >= 0")
        for option, count in (("--patience", self.patience), ("--validate-every", self.validate_every)):
            if count is not None:
                require_range(option, count, 1, MAX_STEPS)
        both = self.beta_warmup > 0 and self.beta_cycles > 0
        require(not both, "--beta-warmup", self.beta_warmup, "either --beta-warmup or --beta-cycles")
        if self.beta_warmup > 0 or self.beta_cycles > 0:
            require(self.recipe.beta > 0, "--beta", self.recipe.beta, "a beta above 0 for it to rise to")
        require(self.recipe.weights != "batch", "--weights", "batch", "global or none: training has no fixed batch")


def from_anywhere(settings: TrainSettings) -> TrainSettings:
    """Return the settings with absolute paths: a run may be resumed from another working directory."""
    paths = {n: path.absolute() for n in ("weights_file", "cache_dir", "out") if (path := getattr(settings, n))}
    model = settings.model
    if model is not None and model.where.endswith(".py"):
        model = replace(model, where=str(Path(model.where).absolute()))
    return replace(settings, data=str(Path(settings.data).absolute()), model=model, **paths)


_TRAINING = Recipe(lr_decay="cosine", warmup=100, stop_when="never")

RECIPES: dict[str, Recipe] = {
    "default": _TRAINING,
    "adam": replace(_TRAINING, optimizer="adam"),
    # cross-entropy with softer weights: more pixels are right, and the rare classes are still learned
    "soft": replace(_TRAINING, gamma=0.0, weights_power=0.4, lr=1.5e-3, warmup=200),
}
"""`default` has the loss and the weights of the check's default; docs/method.md has the results of each."""
