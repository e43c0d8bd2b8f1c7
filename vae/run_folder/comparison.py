"""What differs between two runs, each of them a check or a training run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

from ..results.json_values import plain
from ..results.overfit_summary import RunSummary
from ..results.training_summary import UNUSED, TrainSummary
from .reader import StoredRun

Pair = tuple[Any, Any]
Words = dict[str, Any]

NOT_SETTINGS = ("out", "overwrite", "may_scan", "cache_dir", "tensorboard")
"""Settings that say where things lie and what is written, and change no number."""
_RESULTS = (
    "verdict", "finished", "diverged", "stopped", "iterations", "best_step", "best_epoch", "pixel_accuracy",
    "macro_accuracy", "worst_class_accuracy", "worst_class", "skill", "loss", "focal", "kl", "active_dimensions",
    "retrieval", "distinct_pictures", "background_share", "majority_share", "seconds",
)  # fmt: skip
"""Those of either kind of run; two runs are compared by what both have."""


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side; a pair is (first run, second run)."""

    runs: tuple[str, str]
    kinds: tuple[str, str]
    """`overfit` or `train`."""
    same_objective: bool
    objective: dict[str, Pair]
    """Its parts, those that are equal too."""
    settings: dict[str, Pair]
    """Settings that differ, by the name of the option without dashes."""
    own_settings: tuple[Words, Words]
    """Settings that only a run of this kind has; empty where both runs are of one kind."""
    environment: dict[str, Pair]
    """Device, backend, threads and versions that differ."""
    same_data: bool | None
    """The files that were counted hold the same bytes; None where a run did not take the digest."""
    same_batch: bool | None
    """None, as `batch`, unless both runs have a fixed batch."""
    same_weights: bool
    data: Pair
    """Digests of the datasets."""
    batch: Pair | None
    """Digests of the batches."""
    weights: Pair
    """Sources, schemes and ratios of the weights, in words."""
    results: dict[str, Pair]
    class_accuracy: tuple[Pair, ...]
    first_different_step: int | None
    """The first step at which `metrics.csv` holds another measured number; None where none does, and where one run
    measures every step of a batch and the other one its validations."""

    @classmethod
    def from_runs(cls, first: StoredRun, second: StoredRun) -> Comparison:
        """Compare two runs."""
        a, b = first.summary, second.summary
        alike = type(a) is type(b)
        digests = a.setup.dataset.digest, b.setup.dataset.digest
        batches = _batches(a, b)
        both = minimised(first), minimised(second)
        objective: dict[str, Pair] = {name: (both[0][name], both[1][name]) for name in both[0]}
        settings = _settings(first), _settings(second)
        return cls(
            runs=(str(first.folder), str(second.folder)),
            kinds=(_kind(a), _kind(b)),
            same_objective=all(left == right for left, right in objective.values()),
            objective=objective,
            settings=_differing(*settings, common=not alike),
            own_settings=({}, {}) if alike else (_only(*settings), _only(*reversed(settings))),
            environment=_differing(_environment(first), _environment(second), common=not alike),
            same_data=None if None in digests else digests[0] == digests[1],
            same_batch=None if batches is None else batches[0] == batches[1],
            same_weights=a.setup.weights.values == b.setup.weights.values,
            data=digests,
            batch=batches,
            weights=(_weights(a), _weights(b)),
            results=_results(a, b),
            class_accuracy=tuple(zip_longest(a.class_accuracy, b.class_accuracy)),
            first_different_step=_first_different(first.metrics(), second.metrics()) if alike else None,
        )

    def json(self) -> dict[str, Any]:
        """What `compare --json` prints."""
        found: dict[str, Any] = plain(asdict(self))
        return found


def _kind(run: RunSummary | TrainSummary) -> str:
    return run.kind if isinstance(run, TrainSummary) else "overfit"


def _batches(a: RunSummary | TrainSummary, b: RunSummary | TrainSummary) -> Pair | None:
    """Digests of the fixed batches, where both have one."""
    if isinstance(a, RunSummary) and isinstance(b, RunSummary):
        return a.setup.batch.digest, b.setup.batch.digest
    return None


def _results(a: RunSummary | TrainSummary, b: RunSummary | TrainSummary) -> dict[str, Pair]:
    """What both runs measured."""
    names = [name for name in _RESULTS if hasattr(a, name) and hasattr(b, name)]
    found: dict[str, Pair] = {name: (getattr(a, name), getattr(b, name)) for name in names}
    if isinstance(a, RunSummary) and isinstance(b, RunSummary):
        reached = zip(asdict(a.reached).items(), asdict(b.reached).values(), strict=True)
        found |= {f"reached {name}": (left, right) for (name, left), right in reached}
    return found


def _settings(run: StoredRun) -> Words:
    both = {**run.config.get("settings", {}), **run.config.get("recipe", {})}
    left_out = (*NOT_SETTINGS, *(UNUSED if isinstance(run.summary, TrainSummary) else ()))
    return {name.replace("_", "-"): value for name, value in both.items() if name not in left_out}


def _environment(run: StoredRun) -> Words:
    setup = run.summary.setup
    found = {"device": setup.device, "backend": setup.backend, "threads used": run.config.get("threads")}
    if not isinstance(run.summary, TrainSummary):
        found["steps"] = run.summary.setup.steps or "one by one"  # all that older versions could
    return {**found, **run.config.get("versions", {})}


def _differing(first: Words, second: Words, common: bool) -> dict[str, Pair]:
    """Pairs that differ; of names that only one has, None stands for the other, or `common` leaves them out."""
    names = [*first, *(name for name in second if name not in first)]
    pairs = {name: (first.get(name), second.get(name)) for name in names}
    return {
        name: (left, right)
        for name, (left, right) in pairs.items()
        if left != right and not (common and (name not in first or name not in second))
    }


def _only(first: Words, second: Words) -> Words:
    """What only the first has."""
    return {name: value for name, value in first.items() if name not in second}


def _weights(run: RunSummary | TrainSummary) -> str:
    weights = run.setup.weights
    ratio = "infinite" if weights.ratio is None else f"{weights.ratio:.4g}"
    return f"{weights.source} {weights.scheme}, ratio {ratio}"


def _first_different(first: list[dict[str, str]], second: list[dict[str, str]]) -> int | None:
    """The step of the first row that differs; rows of training are some steps apart."""
    for number, (left, right) in enumerate(zip_longest(first, second)):
        if left is None or right is None or _measured(left) != _measured(right):
            step = (left or right).get("step", "")
            return int(step) if step.isdecimal() else number
    return None


def _measured(row: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in row.items() if name not in ("lr", "beta")}


def minimised(run: StoredRun) -> dict[str, Any]:
    """The parts of the objective by name, in the order in which they are told.

    Two runs whose parts are equal have the same objective: focal loss over these weights, reduced this way, plus beta
    times the divergence. The weights are float64 values, which JSON keeps to the last bit.
    """
    settings, recipe = run.config.get("settings", {}), run.config.get("recipe", {})
    weights = run.summary.setup.weights
    return {
        "loss": "focal",  # the only one; gamma 0 makes it cross-entropy
        "weights": list(weights.values),
        "source": weights.source,
        "scheme": weights.scheme,
        "gamma": recipe.get("gamma"),
        "reduction": recipe.get("reduction"),
        "ignore-index": settings.get("ignore_index"),
        "beta": _beta(settings, recipe),
        # with beta 0 there is no divergence that could be free
        "free-bits": recipe.get("free_bits", 0.0) if _beta(settings, recipe) else 0.0,
    }


def _beta(settings: dict[str, Any], recipe: dict[str, Any]) -> Any:
    """beta as one number where it is constant, else what it follows."""
    if recipe.get("beta_ramp"):
        return recipe["beta_ramp"]
    beta = recipe.get("beta")
    names = ("beta_warmup", "beta_cycles")
    changes = {name.replace("_", "-"): settings[name] for name in names if settings.get(name)}
    return {"beta": beta, **changes} if beta and changes else beta
