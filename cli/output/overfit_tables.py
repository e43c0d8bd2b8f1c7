"""The tables of a check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from .terminal import Terminal

if TYPE_CHECKING:
    from vaefit.vae.metrics.diagnosis import Diagnosis
    from vaefit.vae.objective.preflight import Agreement
    from vaefit.vae.results.overfit_summary import DatasetSummary, RunSummary, SetupSummary, WeightsSummary

_STYLES = {"MEMORISED": "bold green", "LEARNING": "bold yellow", "COLLAPSED": "bold red", "DIVERGED": "bold red"}


def print_setup(terminal: Terminal, setup: SetupSummary) -> None:
    """What is fitted: dataset, batch and weights, with both distributions side by side."""
    dataset, weights, batch = setup.dataset, setup.weights, setup.batch
    print_dataset(terminal, dataset)
    swapped = f", {batch.swapped} swapped in for rare classes" if batch.swapped else ""
    terminal.line(f"batch       {len(batch.indices)} grids{swapped}, digest {batch.digest[:16]}")
    if setup.model is not None:
        terminal.line(f"model       {setup.model}: {setup.adapter}")
    terminal.line(f"focal loss  {setup.backend} ({setup.backend_reason})")
    if setup.steps is not None:
        terminal.line(f"preflight   {agreement(setup.backend, setup.preflight)}")
        terminal.line(f"steps       {setup.steps} ({setup.steps_reason})")
    if setup.lr_reason is not None:
        terminal.line(f"rate        {setup.lr_reason}")
    terminal.line()

    print_classes(terminal, dataset, weights, batch.counts)


def print_dataset(terminal: Terminal, dataset: DatasetSummary) -> None:
    """What is counted, and where the counts come from."""
    shards = f" in {len(dataset.shards):,} shards" if dataset.shards else ""
    size = f"{dataset.grids:,} grids of {dataset.height} x {dataset.width}{shards}, {dataset.classes} classes"
    terminal.line(f"data        {dataset.path}: {size}")
    terminal.line(f"counts      {_known(dataset)}")


def print_classes(
    terminal: Terminal, dataset: DatasetSummary, weights: WeightsSummary, batch: tuple[int, ...] | None
) -> None:
    """Count, share and weight of each class, beside those of a fixed batch, and the statistics of the weights."""
    table = Table(title="classes")
    table.add_column("class", justify="right")
    for column in ("dataset", "share", *(() if batch is None else ("batch", "share ")), "weight"):
        table.add_column(column, justify="right")
    hidden = 0
    for c, (whole, weight) in enumerate(zip(dataset.counts, weights.values, strict=True)):
        here = None if batch is None else batch[c]
        if whole == 0 and not here:
            hidden += 1
            continue
        beside = () if batch is None or here is None else (f"{here:,}", _share(here, batch))
        table.add_row(str(c), f"{whole:,}", _share(whole, dataset.counts), *beside, f"{weight:.4f}")
    terminal.table(table)
    if hidden:
        terminal.line(f"{hidden} of {dataset.classes} classes never occur and are not listed")
    low, high = min(weights.values), max(weights.values)
    ratio = "infinite" if weights.ratio is None else f"{weights.ratio:.2f}"
    origin = describe_weights(weights.scheme, weights.source)
    terminal.line(f"weights     {origin}: {low:.4f} to {high:.4f}, ratio {ratio}")
    terminal.line()


def _known(dataset: DatasetSummary) -> str:
    """Where the counts come from."""
    cached = sum(shard.source == "cache" for shard in dataset.shards)
    if dataset.shards:
        scanned = f", {len(dataset.shards) - cached:,} scanned in {dataset.seconds:.2f} s"
        return f"{cached:,} shards cached{scanned if cached < len(dataset.shards) else ''}"
    if dataset.source == "cache":
        return f"cached in {dataset.cache_file}"
    return f"scanned in {dataset.seconds:.2f} s"


def agreement(backend: str, found: Agreement | None) -> str:
    """How the loss compares with its reference, in words."""
    if found is None:
        return f"{backend} cannot be compared: its loss or gradient is not finite"
    return f"{backend} agrees with the float64 reference: {found}"


def describe_weights(scheme: str, source: str) -> str:
    """Scheme and source in words."""
    words = {"none": "none, every class counts 1", "file": "from a file, used as they are"}
    return words.get(source, f"{scheme} of the {'whole dataset' if source == 'global' else 'batch'}")


def print_result(terminal: Terminal, run: RunSummary) -> None:
    """What came out: accuracy per class, signals, verdict."""
    from vaefit.vae.results.overfit_signals import readings

    table = Table(title="accuracy per class")
    for column in ("class", "cells in batch", "accuracy", "first predicted", "last predicted"):
        table.add_column(column, justify="right")
    counts = run.setup.batch.counts
    for c, (accuracy, steps) in enumerate(zip(run.class_accuracy, run.class_predicted_steps, strict=True)):
        if accuracy is None and steps is None:
            continue
        first, last = ("never", "never") if steps is None else (f"step {steps[0]}", f"step {steps[1]}")
        weak = accuracy is not None and accuracy < run.target
        shown = "not in batch" if accuracy is None else f"{accuracy:.4f}"
        table.add_row(str(c), f"{counts[c]:,}", shown, first, last, style="red" if weak else None)
    terminal.table(table)

    signals = Table(title="signals", show_header=False)
    signals.add_column(justify="left")
    signals.add_column(justify="right")
    signals.add_column(justify="left")
    for reading in readings(run):
        signals.add_row(reading.name, reading.text, reading.meaning)
    terminal.table(signals)
    terminal.line(f"{run.verdict} after {run.iterations} updates, {run.seconds:.1f} s", _STYLES[run.verdict])
    terminal.line(f"why   {run.reason}")
    if run.diagnosis is not None:
        _print_diagnosis(terminal, run.diagnosis)
    if run.next:
        terminal.line(f"next  {run.next}")
    if not run.passed and run.diagnosis is None:
        terminal.line("      --diagnose finds out why, by short reruns that change one thing each")
    terminal.line(f"run   {run.run_dir}: report.html, reconstructions.png, curves.png, metrics.csv, result.json")


def _print_diagnosis(terminal: Terminal, diagnosis: Diagnosis) -> None:
    """The cause, and what it was found by."""
    from vaefit.vae.results.overfit_signals import optional

    terminal.line()
    findings = Table(title="measured on the failed model", show_header=False)
    for finding in diagnosis.findings:
        findings.add_row(finding.name, finding.found, style="yellow" if finding.suspicious else None)
    terminal.table(findings)
    if diagnosis.controls:
        controls = Table(title="the same run, changed")
        controls.add_column("change")
        for column in ("updates", "worst class", "skill", "retrieval"):
            controls.add_column(column, justify="right")
        controls.add_column("verdict")
        for c in diagnosis.controls:
            numbers = (f"{c.updates}", f"{c.worst_class:.4f}", optional(c.skill), optional(c.retrieval))
            controls.add_row(c.name, *numbers, c.verdict, style="green" if c.mended else None)
        terminal.table(controls)
    if diagnosis.skipped:
        terminal.line(f"not run: {', '.join(diagnosis.skipped)}")
    terminal.line(f"cause {diagnosis}", "bold")


def _share(count: int, counts: tuple[int, ...]) -> str:
    return f"{100 * count / sum(counts):.2f} %"
