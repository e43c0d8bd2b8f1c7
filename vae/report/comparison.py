"""What differs between two runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

from .jsonable import plain
from .stored import StoredRun

Pair = tuple[Any, Any]

NOT_SETTINGS = ("out", "overwrite", "may_scan", "cache_dir", "tensorboard")
"""Settings that say where things lie and what is written, and change no number."""
_RESULTS = (
    "verdict", "iterations", "pixel_accuracy", "macro_accuracy", "worst_class_accuracy", "worst_class", "skill",
    "retrieval", "distinct_pictures", "background_share", "majority_share", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side; a pair is (first run, second run)."""

    runs: tuple[str, str]
    settings: dict[str, Pair]
    """Settings that differ, by the name of the option without dashes."""
    environment: dict[str, Pair]
    """Device, backend, threads and versions that differ."""
    same_data: bool | None
    """The files that were counted hold the same bytes; None where a run did not take the digest."""
    same_batch: bool
    same_weights: bool
    data: Pair
    """Digests of the datasets."""
    batch: Pair
    """Digests of the batches."""
    weights: Pair
    """Sources, schemes and ratios of the weights, in words."""
    results: dict[str, Pair]
    class_accuracy: tuple[Pair, ...]
    first_different_step: int | None
    """The first step at which `metrics.csv` holds another measured number; None where none does."""

    @classmethod
    def of(cls, first: StoredRun, second: StoredRun) -> Comparison:
        """Compare two runs."""
        a, b = first.summary, second.summary
        digests = a.setup.dataset.digest, b.setup.dataset.digest
        results: dict[str, Pair] = {name: (getattr(a, name), getattr(b, name)) for name in _RESULTS}
        reached = zip(asdict(a.reached).items(), asdict(b.reached).values(), strict=True)
        results |= {f"reached {name}": (left, right) for (name, left), right in reached}
        return cls(
            runs=(str(first.folder), str(second.folder)),
            settings=_differing(_settings(first), _settings(second)),
            environment=_differing(_environment(first), _environment(second)),
            same_data=None if None in digests else digests[0] == digests[1],
            same_batch=a.setup.batch.digest == b.setup.batch.digest,
            same_weights=a.setup.weights.values == b.setup.weights.values,
            data=digests,
            batch=(a.setup.batch.digest, b.setup.batch.digest),
            weights=(_weights(first), _weights(second)),
            results=results,
            class_accuracy=tuple(zip_longest(a.class_accuracy, b.class_accuracy)),
            first_different_step=_first_different(first.metrics(), second.metrics()),
        )

    def json(self) -> dict[str, Any]:
        """What `compare --json` prints."""
        found: dict[str, Any] = plain(asdict(self))
        return found


def _settings(run: StoredRun) -> dict[str, Any]:
    both = {**run.config.get("settings", {}), **run.config.get("recipe", {})}
    return {name.replace("_", "-"): value for name, value in both.items() if name not in NOT_SETTINGS}


def _environment(run: StoredRun) -> dict[str, Any]:
    setup = run.summary.setup
    versions = run.config.get("versions", {})
    return {
        "device": setup.device,
        "backend": setup.backend,
        "steps": setup.steps or "one by one",  # all that older versions could
        "threads used": run.config.get("threads"),
        **versions,
    }


def _differing(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Pair]:
    names = [*first, *(name for name in second if name not in first)]
    pairs = {name: (first.get(name), second.get(name)) for name in names}
    return {name: (left, right) for name, (left, right) in pairs.items() if left != right}


def _weights(run: StoredRun) -> str:
    weights = run.summary.setup.weights
    ratio = "infinite" if weights.ratio is None else f"{weights.ratio:.4g}"
    return f"{weights.source} {weights.scheme}, ratio {ratio}"


def _first_different(first: list[dict[str, str]], second: list[dict[str, str]]) -> int | None:
    for step, (left, right) in enumerate(zip_longest(first, second)):
        if left is None or right is None or _measured(left) != _measured(right):
            return step
    return None


def _measured(row: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in row.items() if name not in ("lr", "beta")}
