"""Comparison of two runs, each of them an overfit or a training run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

from ..results.json_values import record_values
from ..results.overfit_summary import RunSummary
from ..results.training_summary import UNUSED, TrainSummary
from .reader import StoredRun

Pair = tuple[Any, Any]
Values = dict[str, Any]

NOT_SETTINGS = ("out", "overwrite", "may_scan", "cache_dir", "tensorboard")
"""Settings that name places and files, and change no number."""
_RESULTS = (
    "verdict", "interrupted", "finished", "diverged", "stopped", "iterations", "best_step", "best_epoch",
    "pixel_accuracy", "macro_accuracy", "worst_class_accuracy", "worst_class", "skill", "loss", "focal", "kl",
    "active_dimensions", "retrieval", "variation", "distinct_pictures", "background_share", "majority_share", "seconds",
)  # fmt: skip
"""Results of either kind of run; two runs are compared by those that both have."""


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side; a pair is (first run, second run)."""

    runs: tuple[str, str]
    kinds: tuple[str, str]
    """`overfit` or `train`."""
    same_objective: bool
    objective: dict[str, Pair]
    """All parts, the equal ones included."""
    settings: dict[str, Pair]
    """Settings that differ, by the name of the option without dashes."""
    own_settings: tuple[Values, Values]
    """Settings that only this kind of run has; empty where both runs are of one kind."""
    environment: dict[str, Pair]
    """Device, backend, threads and versions that differ."""
    same_data: bool | None
    """True where the counted files hold the same bytes; None where a digest was not taken."""
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
    """The first step at which `metrics.csv` holds another measured number; None where no step does, and for an overfit
    and a training run, whose rows mean different things."""

    @classmethod
    def from_runs(cls, first: StoredRun, second: StoredRun) -> Comparison:
        """Compare two finished runs."""
        a, b = first.summary, second.summary
        one_kind = first.kind == second.kind
        batch = None
        if isinstance(a, RunSummary) and isinstance(b, RunSummary):
            batch = (a.setup.batch.digest, b.setup.batch.digest)
        digests = a.setup.dataset.digest, b.setup.dataset.digest
        objective = _pairs(_objective(first), _objective(second))
        settings = _settings(first), _settings(second)
        return cls(
            runs=(str(first.folder), str(second.folder)),
            kinds=(first.kind, second.kind),
            same_objective=not _differing(objective),
            objective=objective,
            settings=_differing(_pairs(*settings, common=not one_kind)),
            own_settings=({}, {}) if one_kind else (_only(*settings), _only(*reversed(settings))),
            environment=_differing(_pairs(_environment(first), _environment(second), common=not one_kind)),
            same_data=None if None in digests else digests[0] == digests[1],
            same_batch=None if batch is None else batch[0] == batch[1],
            same_weights=a.setup.weights.values == b.setup.weights.values,
            data=digests,
            batch=batch,
            weights=(_weights(a), _weights(b)),
            results=_pairs(_results(a), _results(b), common=True),
            class_accuracy=tuple(zip_longest(a.class_accuracy, b.class_accuracy)),
            first_different_step=_first_different(first.metrics(), second.metrics()) if one_kind else None,
        )

    def json(self) -> dict[str, Any]:
        """Return what `compare --json` prints."""
        return record_values(self)


def _pairs(first: Values, second: Values, common: bool = False) -> dict[str, Pair]:
    """Pair the values by name; None stands for a value that one run lacks, or `common` leaves such names out."""
    names = [name for name in {**first, **second} if not common or (name in first and name in second)]
    return {name: (first.get(name), second.get(name)) for name in names}


def _differing(pairs: dict[str, Pair]) -> dict[str, Pair]:
    return {name: (left, right) for name, (left, right) in pairs.items() if left != right}


def _only(first: Values, second: Values) -> Values:
    return {name: value for name, value in first.items() if name not in second}


def _results(run: RunSummary | TrainSummary) -> Values:
    found = {name: getattr(run, name) for name in _RESULTS if hasattr(run, name)}
    reached = asdict(run.reached) if isinstance(run, RunSummary) else {}
    return found | {f"reached {name}": step for name, step in reached.items()}


def _settings(run: StoredRun) -> Values:
    both = {**run.config.settings, **run.config.recipe}
    left_out = (*NOT_SETTINGS, *(UNUSED if isinstance(run.summary, TrainSummary) else ()))
    return {name.replace("_", "-"): value for name, value in both.items() if name not in left_out}


def _environment(run: StoredRun) -> Values:
    setup = run.summary.setup
    found = {"device": setup.device, "backend": setup.backend, "threads used": run.config.threads}
    if isinstance(run.summary, RunSummary):
        found["steps"] = run.summary.setup.steps or "one by one"  # the only way of older versions
    return {**found, **run.config.versions}


def _weights(run: RunSummary | TrainSummary) -> str:
    weights = run.setup.weights
    ratio = "infinite" if weights.ratio is None else f"{weights.ratio:.4g}"
    return f"{weights.source} {weights.scheme}, ratio {ratio}"


def _first_different(first: Iterable[dict[str, str]], second: Iterable[dict[str, str]]) -> int | None:
    """Return the step of the first row that differs, the rate and beta left out."""
    for number, (left, right) in enumerate(zip_longest(first, second)):
        if left is None or right is None or _measured(left) != _measured(right):
            step = (left or right).get("step", "")
            return int(step) if step.isdecimal() else number
    return None


def _measured(row: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in row.items() if name not in ("lr", "beta")}


def _objective(run: StoredRun) -> Values:
    """Return the parts of the objective by name, in the order in which they are printed.

    Two runs with equal parts have the same objective: focal loss with these weights and this reduction, plus beta times
    the KL. The weights are float64 values, which JSON keeps to the last bit.
    """
    settings, recipe = run.config.settings, run.config.recipe
    weights, beta = run.summary.setup.weights, _beta(settings, recipe)
    return {
        "loss": "focal",  # the only one; gamma 0 makes it cross-entropy
        "weights": list(weights.values),
        "source": weights.source,
        "scheme": weights.scheme,
        "gamma": recipe.get("gamma"),
        "reduction": recipe.get("reduction"),
        "ignore-index": settings.get("ignore_index"),
        "beta": beta,
        # without beta, no KL counts, and so no free bits
        "free-bits": recipe.get("free_bits", 0.0) if beta else 0.0,
    }


def _beta(settings: Values, recipe: Values) -> Any:
    """Return beta as one number where it is constant, else the parameters of its schedule."""
    if recipe.get("beta_ramp"):
        return recipe["beta_ramp"]
    beta = recipe.get("beta")
    names = ("beta_warmup", "beta_cycles")
    changes = {name.replace("_", "-"): settings[name] for name in names if settings.get(name)}
    return {"beta": beta, **changes} if beta and changes else beta
