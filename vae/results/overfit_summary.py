"""The result of a run as plain values: what `result.json` holds, what is printed, and what is read again."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from ..fitting.result import Reached, RunHeader
from ..metrics.diagnosis import Diagnosis
from ..metrics.verdict import Verdict
from ..objective.preflight import Agreement
from ..recipe import Recipe
from .json_values import plain

if TYPE_CHECKING:
    from vaefit.cache import DatasetCounts, ShardCounts

    from ..data.class_weights import ClassWeights
    from ..fitting.result import OverfitRun, Prepared


@dataclass(frozen=True)
class ShardSummary:
    """One of the files that a dataset lies in."""

    file: str
    grids: int
    cells: int
    source: str
    cache_file: str | None
    digest: str | None

    @classmethod
    def from_counts(cls, counted: DatasetCounts) -> ShardSummary:
        """Summarise what was counted."""
        file = None if counted.cache_file is None else str(counted.cache_file)
        return cls(str(counted.location), counted.grids, counted.cells, counted.source, file, counted.digest)


@dataclass(frozen=True)
class DatasetSummary:
    """The dataset that the batch and the weights come from."""

    path: str
    """The file; of several, the first and the last."""
    counts: tuple[int, ...]
    grids: int
    height: int
    width: int
    classes: int
    source: str
    """Where the counts come from, `cache` or `scan`."""
    cache_file: str | None
    """None for several shards, each of which has its own."""
    digest: str | None
    """Of the file's bytes, or of the shards' digests; None where it was not taken."""
    seconds: float
    shards: tuple[ShardSummary, ...] = ()
    """In the order in which indices count through their grids; empty for a dataset in one file."""

    @classmethod
    def from_counts(cls, dataset: ShardCounts) -> DatasetSummary:
        """Summarise what was counted."""
        _, height, width = dataset.shape
        return cls(
            dataset.name,
            tuple(dataset.counts.tolist()),
            dataset.grids,
            height,
            width,
            dataset.classes,
            dataset.source,
            None if dataset.cache_file is None else str(dataset.cache_file),
            dataset.digest,
            dataset.seconds,
            tuple(map(ShardSummary.from_counts, dataset.shards)) if len(dataset.shards) > 1 else (),
        )


@dataclass(frozen=True)
class BatchSummary:
    """The fixed batch."""

    digest: str
    indices: tuple[int, ...]
    swapped: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class WeightsSummary:
    """The class weights; `ratio` is None where the smallest is 0."""

    source: str
    scheme: str
    ratio: float | None
    values: tuple[float, ...]

    @classmethod
    def from_weights(cls, weights: ClassWeights) -> WeightsSummary:
        """Summarise weights."""
        ratio = weights.ratio if math.isfinite(weights.ratio) else None
        return cls(weights.source, weights.scheme, ratio, tuple(weights.values.tolist()))


@dataclass(frozen=True)
class SetupSummary:
    """What is known of a run before its first step."""

    dataset: DatasetSummary
    batch: BatchSummary
    weights: WeightsSummary
    backend: str
    backend_reason: str
    device: str
    preflight: Agreement | None = None
    """None, as the next six, in the folder of a run by a version that did not know of it."""
    steps: str | None = None
    steps_reason: str | None = None
    model: str | None = None
    """Class and size, in words."""
    adapter: str | None = None
    """What the model takes and gives, in words."""
    lr: float | None = None
    """The rate that was used, given or found."""
    lr_reason: str | None = None
    """How a range test chose it; None where it was given."""

    @classmethod
    def from_header(cls, prepared: Prepared, start: RunHeader, recipe: Recipe) -> SetupSummary:
        """Summarise what was prepared, and found when the model was there."""
        dataset, batch, weights = prepared.dataset, prepared.batch, prepared.weights
        return cls(
            DatasetSummary.from_counts(dataset),
            BatchSummary(batch.digest, batch.indices, batch.swapped, tuple(prepared.batch_counts.tolist())),
            WeightsSummary.from_weights(weights),
            prepared.backend.name,
            prepared.backend.reason,
            str(prepared.device),
            start.preflight,
            start.steps.name,
            start.steps.reason,
            start.model,
            str(start.adapter),
            recipe.rate if start.range_test is None else start.range_test.rate,
            None if start.range_test is None else str(start.range_test),
        )


@dataclass(frozen=True)
class RunSummary:
    """A finished run."""

    verdict: Verdict
    passed: bool
    reason: str
    next: str | None
    collapsed_class: int | None
    iterations: int
    target: float
    reached: Reached
    pixel_accuracy: float
    macro_accuracy: float
    worst_class_accuracy: float
    worst_class: int
    class_accuracy: tuple[float | None, ...]
    class_predicted_steps: tuple[tuple[int, int] | None, ...]
    background_share: float
    majority_share: float
    skill: float | None
    retrieval: float | None
    distinct_pictures: int
    setup: SetupSummary
    seconds: float
    run_dir: str
    confusion: tuple[tuple[int, ...], ...] | None = None
    """Row = target, column = prediction; None in the folder of a run by a version that did not write it."""
    diagnosis: Diagnosis | None = None
    """None where the run passed, and where nobody asked for controls."""

    @classmethod
    def from_run(cls, check: OverfitRun) -> RunSummary:
        """Summarise a finished check."""
        result = check.result
        accuracies, judgement = result.accuracies, result.judgement
        return cls(
            verdict=judgement.verdict,
            passed=judgement.passed,
            reason=judgement.reason,
            next=judgement.next or None,
            collapsed_class=judgement.collapsed_class,
            iterations=result.iterations,
            target=result.recipe.target,
            reached=result.reached,
            pixel_accuracy=accuracies.pixel,
            macro_accuracy=accuracies.macro,
            worst_class_accuracy=accuracies.worst,
            worst_class=accuracies.worst_class,
            class_accuracy=accuracies.classes,
            class_predicted_steps=tuple(result.predicted_steps(c) for c in range(check.prepared.dataset.classes)),
            background_share=result.shares.background,
            majority_share=result.shares.majority,
            skill=result.skill,
            retrieval=result.retrieval,
            distinct_pictures=result.distinct_pictures,
            setup=SetupSummary.from_header(check.prepared, check.result.start, check.result.recipe),
            seconds=check.seconds,
            run_dir=str(check.run_dir),
            confusion=tuple(map(tuple, result.confusion.tolist())),
            diagnosis=result.diagnosis,
        )

    def json(self) -> dict[str, Any]:
        """What `overfit --json` prints; the setup's parts stand beside the results."""
        found: dict[str, Any] = plain(asdict(self))
        setup, where = found.pop("setup"), found.pop("run_dir")
        return {**found, **setup, "run_dir": where}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> RunSummary:
        """Take what `json` gave apart; msgspec.ValidationError, which names the key, where it does not fit."""
        import msgspec

        parts = {f.name for f in fields(SetupSummary)}
        setup = {key: value for key, value in found.items() if key in parts}
        return msgspec.convert({**found, "setup": setup}, cls)
