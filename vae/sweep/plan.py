"""Plan of a sweep: every combination of the values of the knobs, each over the same seeds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from vaefit.cache.errors import require_range

from ..settings import CheckSettings

MAX_SEEDS = 10_000


@dataclass(frozen=True)
class Knob:
    """An option that is varied, and its values as they were typed."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """A combination of values: a value for each knob, and the settings with these values."""

    values: tuple[str, ...]
    settings: CheckSettings


@dataclass(frozen=True)
class Plan:
    """A full grid of settings, each run with `seeds` pairs of `--seed` and `--batch-seed`.

    Raises SettingError where `seeds` is out of range.
    """

    knobs: tuple[Knob, ...]
    settings: tuple[Setting, ...]
    seeds: int

    def __post_init__(self) -> None:
        require_range("--seeds", self.seeds, 1, MAX_SEEDS)

    @property
    def runs(self) -> int:
        """Number of runs of the sweep."""
        return len(self.settings) * self.seeds

    def checks(self) -> Iterator[tuple[Setting, int, CheckSettings]]:
        """Give for each run its setting, the number of its seeds, and its settings with these seeds.

        The n-th run of every setting has both seeds raised by n, except for a seed that is a knob itself: settings are
        compared on the same batches.
        """
        varied = {knob.name for knob in self.knobs}
        for setting in self.settings:
            base = setting.settings
            for number in range(self.seeds):
                seed = base.seed + (0 if "seed" in varied else number)
                batch_seed = base.batch_seed + (0 if "batch-seed" in varied else number)
                yield setting, number, replace(base, seed=seed, batch_seed=batch_seed)
