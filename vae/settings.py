"""Settings of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from vaefit.cache.errors import require_range
from vaefit.cache.scan.histogram import MAX_CLASSES

from .environment.device import known_backend, known_device
from .model.user_model import DEFAULT_LATENT, ModelSource
from .recipe import MAX_BATCH, MAX_SEED, Recipe

MAX_LATENT = 1 << 16
MAX_THREADS = 1024


@dataclass(frozen=True)
class RunSettings:
    """Settings of every run, a check as well as training; the fields have the names of the options.

    Raises SettingError for a value that is wrong by itself.
    """

    data: Path | str
    recipe: Recipe = field(default_factory=Recipe)
    batch_size: int = 32
    seed: int = 0
    model: ModelSource | None = None
    """None takes a BetaVAE."""
    latent_dim: int | None = DEFAULT_LATENT
    """None leaves the size to the model."""
    classes: int | None = None
    ignore_index: int | None = None
    weights_file: Path | None = None
    cache_dir: Path | None = None
    may_scan: bool = True
    device: str = "auto"
    backend: str = "auto"
    threads: int | None = None
    out: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        require_range("--batch-size", self.batch_size, 1, MAX_BATCH)
        require_range("--seed", self.seed, 0, MAX_SEED)
        if self.latent_dim is not None:
            require_range("--latent-dim", self.latent_dim, 1, MAX_LATENT)
        if self.classes is not None:
            require_range("--classes", self.classes, 2, MAX_CLASSES)
        if self.ignore_index is not None:
            require_range("--ignore-index", self.ignore_index, -MAX_SEED - 1, MAX_SEED)
        if self.threads is not None:
            require_range("--threads", self.threads, 1, MAX_THREADS)
        known_device(self.device)
        known_backend(self.backend)


@dataclass(frozen=True)
class CheckSettings(RunSettings):
    """The settings of `vaefit-cli overfit`."""

    batch_seed: int = 0
    indices: tuple[int, ...] | None = None
    allow_duplicates: bool = False
    diagnose: bool = False
    graph: bool | None = None
    tensorboard: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("--batch-seed", self.batch_seed, 0, MAX_SEED)
