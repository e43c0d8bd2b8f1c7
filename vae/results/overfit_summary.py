"""Result of an overfit run as plain values: `result.json` holds it, commands print it, and it is read again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from vaefit.cache import DatasetCounts, ShardCounts

from ..data.class_weights import ClassWeights
from ..fitting.result import OverfitRun, Prepared, Reached, RunHeader
from ..metrics.diagnosis import Diagnosis
from ..metrics.verdict import Verdict
from ..objective.preflight import Agreement
from ..recipe import Recipe
from .metrics import ACCURACIES, BASELINES, Confusion, Metrics, measured


@dataclass(frozen=True)
class ShardSummary:
    """A file of a dataset of several files."""

    file: str
    grids: int
    cells: int
    source: str
    cache_file: str | None
    digest: str | None

    @classmethod
    def from_counts(cls, counted: DatasetCounts) -> ShardSummary:
        """Summarise a count."""
        file = None if counted.cache_file is None else str(counted.cache_file)
        return cls(str(counted.location), counted.grids, counted.cells, counted.source, file, counted.digest)


@dataclass(frozen=True)
class DatasetSummary:
    """The dataset of the batch and the weights."""

    path: str
    """The file; of several, the first and the last."""
    counts: tuple[int, ...]
    grids: int
    height: int
    width: int
    classes: int
    source: str
    """Source of the counts, `cache` or `scan`."""
    cache_file: str | None
    """None for several shards, each of which has its own."""
    digest: str | None
    """Digest of the file's bytes, or of the shards' digests; None where it was not taken."""
    seconds: float
    shards: tuple[ShardSummary, ...] = ()
    """In the order of the indices of their grids; empty for a dataset in one file."""
    name: str | None = None
    """Path of the dataset in its file; None where shards have different ones, and in the folder of an older version."""
    passed_over: tuple[str, ...] = ()
    """Paths of the other datasets of the files, where the caller named none."""

    @property
    def where(self) -> str:
        """The file and the dataset in it, as a command takes them."""
        named = self.name is None or self.path.endswith(f":{self.name}")
        return self.path if named else f"{self.path}:{self.name}"

    @classmethod
    def from_counts(cls, dataset: ShardCounts) -> DatasetSummary:
        """Summarise a count."""
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
            dataset.dataset,
            dataset.passed_over,
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
    """Header of an overfit run: everything known before its first step."""

    dataset: DatasetSummary
    batch: BatchSummary
    weights: WeightsSummary
    backend: str
    backend_reason: str
    device: str
    preflight: Agreement | None = None
    """None, as the next six, in the folder of a run by an older version."""
    steps: str | None = None
    steps_reason: str | None = None
    model: str | None = None
    """Class and size, in words."""
    adapter: str | None = None
    """Input and output format of the model, in words."""
    lr: float | None = None
    """The learning rate, given or found."""
    lr_reason: str | None = None
    """Result of the range test that chose `lr`; None where `lr` was given."""

    @classmethod
    def from_header(cls, prepared: Prepared, start: RunHeader, recipe: Recipe) -> SetupSummary:
        """Summarise the preparation and the first look at the model."""
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


@dataclass(frozen=True, kw_only=True)
class RunSummary(Metrics):
    """A finished overfit run."""

    KEYS: ClassVar[tuple[str, ...]] = (
        "verdict", "passed", "reason", "next", "collapsed_class", "iterations", "target", "reached",
        *ACCURACIES, "class_predicted_steps", *BASELINES,
    )  # fmt: skip

    verdict: Verdict
    passed: bool
    reason: str
    next: str | None
    collapsed_class: int | None
    iterations: int
    """Updates done."""
    target: float
    reached: Reached
    class_predicted_steps: tuple[tuple[int, int] | None, ...]
    """First and last step at which a cell was predicted as each class; None where no cell ever was."""
    retrieval: float | None
    variation: float | None = None
    """None also in the folder of a run by an older version."""
    distinct_pictures: int
    setup: SetupSummary
    seconds: float
    run_dir: str
    confusion: Confusion | None = None
    """None in the folder of a run by a version that did not write it."""
    interrupted: bool = False
    """The run, or its diagnosis, was stopped before its end."""
    without_gradient: tuple[str, ...] = ()
    """Names of the parameters that no update changed."""
    notes: tuple[str, ...] = ()
    """Sentences on facts that hold whatever the verdict."""
    diagnosis: Diagnosis | None = None
    """None where the run passed, and where no diagnosis was requested."""

    @classmethod
    def from_run(cls, run: OverfitRun) -> RunSummary:
        """Summarise a finished run."""
        result, judgement = run.result, run.result.judgement
        return cls(
            verdict=judgement.verdict,
            passed=judgement.passed,
            reason=judgement.reason,
            next=judgement.next or None,
            collapsed_class=judgement.collapsed_class,
            iterations=result.iterations,
            target=result.recipe.target,
            reached=result.reached,
            class_predicted_steps=tuple(result.predicted_steps(c) for c in range(run.prepared.dataset.classes)),
            retrieval=result.retrieval,
            variation=result.variation,
            distinct_pictures=result.distinct_pictures,
            setup=SetupSummary.from_header(run.prepared, result.start, result.recipe),
            seconds=run.seconds,
            run_dir=str(run.run_dir),
            interrupted=result.interrupted,
            without_gradient=result.without_gradient,
            notes=result.not_updated.notes,
            diagnosis=result.diagnosis,
            **measured(result),
        )
