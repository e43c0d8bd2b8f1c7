"""Tables and lines of runs: a check, a training run, an evaluation, a sweep."""

from __future__ import annotations

from vaefit.vae.metrics.diagnosis import Diagnosis
from vaefit.vae.objective.preflight import Agreement
from vaefit.vae.results.evaluation_summary import EvaluatedOn, EvaluationSummary
from vaefit.vae.results.overfit_summary import DatasetSummary, RunSummary, SetupSummary, WeightsSummary
from vaefit.vae.results.signals import AFTER_DIVERGENCE, optional, readings, recall_trade
from vaefit.vae.results.training_summary import TrainingSetup, TrainSummary
from vaefit.vae.sweep.outcome import Spread, SweepOutcome

from .terminal import Terminal, new_table

_STYLES = {"MEMORISED": "bold green", "LEARNING": "bold yellow", "COLLAPSED": "bold red", "DIVERGED": "bold red"}
MAX_VALIDATIONS = 16
"""Most validations that the table of training shows."""
MAX_CONFUSION = 16
"""Most classes whose confusion counts are printed, and most latent dimensions that are listed."""


def print_overfit_setup(terminal: Terminal, setup: SetupSummary) -> None:
    """Print what a check fits: dataset, batch, model, loss and class weights."""
    batch = setup.batch
    _print_dataset(terminal, setup.dataset)
    swapped = f", {batch.swapped} swapped in for rare classes" if batch.swapped else ""
    terminal.line(f"batch       {len(batch.indices)} grids{swapped}, digest {batch.digest[:16]}")
    if setup.model is not None:
        terminal.line(f"model       {setup.model}: {setup.adapter}")
    terminal.line(f"focal loss  {setup.backend} ({setup.backend_reason})")
    if setup.steps is not None:
        terminal.line(f"preflight   {_agreement(setup.backend, setup.preflight)}")
        terminal.line(f"steps       {setup.steps} ({setup.steps_reason})")
    if setup.lr_reason is not None:
        terminal.line(f"rate        {setup.lr_reason}")
    terminal.line()
    _print_classes(terminal, setup.dataset, setup.weights, batch.counts)


def print_training_setup(terminal: Terminal, setup: TrainingSetup) -> None:
    """Print what is trained: dataset, split, model, batches and class weights."""
    split = setup.split
    test = f", {split['test']:,} kept for a test" if split["test"] else ""
    terminal.line(f"focal loss  {setup.backend} ({setup.backend_reason})")
    _print_dataset(terminal, setup.dataset)
    grids = f"{split['train']:,} grids to train on, {split['val']:,} to validate{test}"
    terminal.line(f"split       {grids}; {setup.split_reason}")
    terminal.line(f"model       {setup.model}: {setup.adapter}")
    terminal.line(f"preflight   {_agreement(setup.backend, setup.preflight)}")
    epochs = f"{setup.epochs:,} epoch{'' if setup.epochs == 1 else 's'} of {setup.updates_an_epoch:,} updates"
    terminal.line(f"updates     {epochs}, batches of {setup.batch_size:,}")
    over = f"; over {setup.ranks:,} processes" if setup.ranks > 1 else ""
    terminal.line(f"batches     {setup.loader}{over}")
    if setup.lr_reason is not None:
        terminal.line(f"rate        {setup.lr_reason}")
    terminal.line()
    _print_classes(terminal, setup.dataset, setup.weights, None)


def print_evaluation_setup(terminal: Terminal, on: EvaluatedOn) -> None:
    """Print which weights are evaluated, on which grids."""
    after = "" if on.step is None else f" of update {on.step:,}"
    which = "last checkpoint" if on.checkpoint == "last" else "weights"
    terminal.line(f"run         {on.run}, {which}{after}")
    terminal.line(f"model       {on.model}: {on.adapter}")
    terminal.line(f"focal loss  {on.backend} ({on.backend_reason})")
    _print_dataset(terminal, on.dataset)
    terminal.line(f"split       {on.split}, {on.grids:,} grids: {on.split_reason}")
    terminal.line()


def print_overfit(terminal: Terminal, run: RunSummary) -> None:
    """Print the result of a check: accuracy per class, signals, verdict and its cause."""
    columns = ("class", "cells in batch", "accuracy", "first predicted", "last predicted")
    table = new_table("accuracy per class", right=columns)
    counts = run.setup.batch.counts
    for c, (accuracy, steps) in enumerate(zip(run.class_accuracy, run.class_predicted_steps, strict=True)):
        if accuracy is None and steps is None:
            continue
        first, last = ("never", "never") if steps is None else (f"step {steps[0]}", f"step {steps[1]}")
        weak = accuracy is not None and accuracy < run.target
        shown = "not in batch" if accuracy is None else f"{accuracy:.4f}"
        table.add_row(str(c), f"{counts[c]:,}", shown, first, last, style="red" if weak else None)
    terminal.table(table)

    signals = new_table("signals", left=("",), right=("",), last=("",), show_header=False)
    for reading in readings(run):
        signals.add_row(reading.name, reading.text, reading.meaning)
    terminal.table(signals)
    end = ", interrupted" if run.interrupted else ""
    terminal.line(f"{run.verdict} after {run.iterations} updates, {run.seconds:.1f} s{end}", _STYLES[run.verdict])
    terminal.line(f"why   {run.reason}")
    for note in run.notes:
        terminal.line(f"note  {note}", "yellow")
    if run.diagnosis is not None:
        _print_diagnosis(terminal, run.diagnosis)
    if run.next:
        terminal.line(f"next  {run.next}")
    if not run.passed and run.diagnosis is None and not run.interrupted:
        terminal.line("      --diagnose finds out why, by short reruns that change one thing each")
    terminal.line(f"run   {run.run_dir}: report.html, reconstructions.png, curves.png, metrics.csv, result.json")


def print_training(terminal: Terminal, run: TrainSummary) -> None:
    """Print the result of training: validations, accuracy per class, warnings and the best epoch."""
    _print_validations(terminal, run)
    table = new_table("accuracy per class", right=("class", "accuracy"))
    for c, accuracy in enumerate(run.class_accuracy):
        if accuracy is not None:
            table.add_row(str(c), f"{accuracy:.4f}")
    terminal.table(table)
    terminal.line(f"on validation, weights of update {run.best_step:,}")
    terminal.line()
    for warning in run.warnings:
        terminal.line(f"warning  {warning}", "yellow")
    trade = recall_trade(run)
    if trade is not None:
        terminal.line(f"note  {trade}")
    if run.active_dimensions is not None and run.kl_dimensions is not None:
        latent = f"{run.active_dimensions} of {len(run.kl_dimensions)} latent dimensions are active"
        terminal.line(f"latent  {latent}, KL {run.kl or 0:.2f} nats a grid")
    end = f"after {run.iterations:,} updates, {run.seconds:.0f} s"
    if run.diverged is not None:
        terminal.line(f"DIVERGED {end}: {run.diverged}", "bold red")
        terminal.line(f"next  {AFTER_DIVERGENCE}")
    else:
        why = f": {run.stopped}" if run.stopped else ""
        terminal.line(f"trained {end}{why}", "bold")
        terminal.line(
            f"best  epoch {run.best_epoch}: macro accuracy {run.macro_accuracy:.4f}, worst class "
            f"{run.worst_class_accuracy:.4f} (class {run.worst_class}), pixel {run.pixel_accuracy:.4f}, "
            f"skill {optional(run.skill)}"
        )
    files = "report.html, reconstructions.png, curves.png, metrics.csv, model.safetensors, result.json"
    terminal.line(f"run   {run.run_dir}: {files}")


def print_evaluation(terminal: Terminal, found: EvaluationSummary) -> None:
    """Print the result of an evaluation: accuracy and confusions per class, latent dimensions, signals."""
    columns = ("class", "cells", "accuracy", "most often taken for")
    table = new_table(f"accuracy per class on {found.on.split}, z = mu", right=columns)
    for c, (accuracy, row) in enumerate(zip(found.class_accuracy, found.confusion, strict=True)):
        if accuracy is None:
            continue
        wrong = [0 if other == c else count for other, count in enumerate(row)]
        most = max(wrong)
        taken = f"{wrong.index(most)} ({most / sum(row):.2%})" if most else "-"
        table.add_row(str(c), f"{sum(row):,}", f"{accuracy:.4f}", taken)
    terminal.table(table)
    if len(found.confusion) <= MAX_CONFUSION:
        title = "confusion counts, row = target, column = prediction"
        confusion = new_table(title, right=("", *map(str, range(len(found.confusion)))))
        for c, row in enumerate(found.confusion):
            if sum(row):
                confusion.add_row(str(c), *(f"{count:,}" for count in row))
        terminal.table(confusion)
    if found.kl_dimensions is not None:
        each = sorted(enumerate(found.kl_dimensions), key=lambda pair: -pair[1])
        listed = ", ".join(f"{dimension}: {kl:.3f}" for dimension, kl in each[:MAX_CONFUSION])
        more = f", {len(each) - MAX_CONFUSION} more below" if len(each) > MAX_CONFUSION else ""
        active = f"{found.active_dimensions} of {len(each)} latent dimensions are active"
        terminal.line(f"latent      {active}, KL {found.kl or 0:.2f} nats a grid")
        terminal.line(f"            KL by dimension: {listed}{more}")
    shares = f"{found.background_share:.4f} without looking at the input, {found.majority_share:.4f} by one class"
    terminal.line(f"pixel       {found.pixel_accuracy:.4f}; {shares}; skill {optional(found.skill)}")
    worst = f"worst class {found.worst_class_accuracy:.4f} (class {found.worst_class})"
    terminal.line(f"macro       {found.macro_accuracy:.4f}, {worst}", "bold")
    terminal.line(f"loss        {found.loss:.6g} with beta {found.beta:g}, focal {found.focal:.6g}")
    terminal.line(f"result      {found.run_dir}: reconstructions.png, result.json")


def print_sweep(terminal: Terminal, outcome: SweepOutcome) -> None:
    """Print median and spread of every setting of a sweep, and the option that made the difference."""
    table = new_table(
        f"median (smallest-largest) of {outcome.seeds} runs each",
        left=[knob.name for knob in outcome.knobs],
        right=("MEMORISED", "95 % pixel", "worst class 95 %", "every cell", "worst class"),
    )
    for setting in outcome.settings:
        style = None if setting.memorised == setting.runs else "red" if setting.memorised == 0 else "yellow"
        worst = setting.worst_class_accuracy
        table.add_row(
            *setting.values,
            f"{setting.memorised}/{setting.runs}",
            *(_steps(spread) for spread in (setting.pixel_95, setting.worst_class_95, setting.exact)),
            "-" if worst.median is None else f"{worst.median:.3f} ({worst.low:.3f}-{worst.high:.3f})",
            style=style,
        )
    terminal.table(table)
    for run in outcome.runs:
        if run.error is not None:
            terminal.line(f"error       {', '.join(run.values)}, seed {run.seed}: {run.error}", "bold red")
    explained = ", ".join(f"{effect.source} {100 * effect.share:.0f} %" for effect in outcome.effects)
    if explained:
        terminal.line(f"explained   {explained}")
    terminal.line(f"difference  {outcome.difference}")
    files = f"{'sweep.png, ' if outcome.runs else ''}sweep.csv, sweep.json and a folder for each run"
    terminal.line(f"sweep       {outcome.run_dir}: {files}; {outcome.seconds:.1f} s")


def _print_dataset(terminal: Terminal, dataset: DatasetSummary) -> None:
    """Print the size of the dataset, and where its counts come from."""
    shards = f" in {len(dataset.shards):,} shards" if dataset.shards else ""
    size = f"{dataset.grids:,} grids of {dataset.height} x {dataset.width}{shards}, {dataset.classes} classes"
    terminal.line(f"data        {dataset.where}: {size}")
    if dataset.passed_over:
        terminal.line(f"passed over {', '.join(dataset.passed_over)}")
    cached = sum(shard.source == "cache" for shard in dataset.shards)
    if dataset.shards:
        scanned = f", {len(dataset.shards) - cached:,} scanned in {dataset.seconds:.2f} s"
        origin = f"{cached:,} shards cached{scanned if cached < len(dataset.shards) else ''}"
    elif dataset.source == "cache":
        origin = f"cached in {dataset.cache_file}"
    else:
        origin = f"scanned in {dataset.seconds:.2f} s"
    terminal.line(f"counts      {origin}")


def _print_classes(
    terminal: Terminal, dataset: DatasetSummary, weights: WeightsSummary, batch: tuple[int, ...] | None
) -> None:
    """Print counts, share and weight of each class, beside those of a fixed batch, and the range of the weights."""
    beside = () if batch is None else ("batch", "share ")
    table = new_table("classes", right=("class", "global", "share", *beside, "weight"))
    hidden = 0
    for c, (count, weight) in enumerate(zip(dataset.counts, weights.values, strict=True)):
        in_batch = () if batch is None else (f"{batch[c]:,}", _share(batch[c], batch))
        if count == 0 and not (batch and batch[c]):
            hidden += 1
            continue
        table.add_row(str(c), f"{count:,}", _share(count, dataset.counts), *in_batch, f"{weight:.4f}")
    terminal.table(table)
    if hidden:
        terminal.line(f"{hidden} of {dataset.classes} classes never occur and are not listed")
    low, high = min(weights.values), max(weights.values)
    ratio = "infinite" if weights.ratio is None else f"{weights.ratio:.2f}"
    origins = {
        "none": "none, every class counts 1",
        "file": "from a file, used as they are",
        "global": f"{weights.scheme} of the whole dataset",
    }
    origin = origins.get(weights.source, f"{weights.scheme} of the batch")
    terminal.line(f"weights     {origin}: {low:.4f} to {high:.4f}, ratio {ratio}")
    terminal.line()


def _agreement(backend: str, found: Agreement | None) -> str:
    """Return how the loss agrees with its reference, in words."""
    if found is None:
        return f"{backend} cannot be compared: its loss or gradient is not finite"
    return f"{backend} agrees with the float64 reference: {found}"


def _print_diagnosis(terminal: Terminal, diagnosis: Diagnosis) -> None:
    """Print the measurements, the reruns and the cause that they show."""
    terminal.line()
    findings = new_table("measured on the failed model", show_header=False)
    for finding in diagnosis.findings:
        findings.add_row(finding.name, finding.found, style="yellow" if finding.suspicious else None)
    terminal.table(findings)
    if diagnosis.controls:
        columns = ("updates", "worst class", "skill", "retrieval")
        controls = new_table("the same run, changed", left=("change",), right=columns, last=("verdict",))
        for c in diagnosis.controls:
            numbers = (f"{c.updates}", f"{c.worst_class:.4f}", optional(c.skill), optional(c.retrieval))
            controls.add_row(c.name, *numbers, c.verdict, style="green" if c.mended else None)
        terminal.table(controls)
    if diagnosis.skipped:
        terminal.line(f"not run: {', '.join(diagnosis.skipped)}")
    terminal.line(f"cause {diagnosis}", "bold")


def _print_validations(terminal: Terminal, run: TrainSummary) -> None:
    columns = ("epoch", "update", "loss", "pixel", "macro", "worst class", "skill", "KL")
    table = new_table("validation, z = mu", right=columns)
    rows = run.history
    for row in rows if len(rows) <= MAX_VALIDATIONS else (*rows[:2], *rows[2 - MAX_VALIDATIONS :]):
        numbers = (row.loss, row.pixel_accuracy, row.macro_accuracy, row.worst_class_accuracy, row.skill)
        shares = ("-" if number is None else f"{number:.4f}" for number in numbers)
        kl = "-" if row.kl is None else f"{row.kl:.2f}"
        best = "bold" if row.step == run.best_step else None
        table.add_row(str(row.epoch), f"{row.step:,}", *shares, kl, style=best)
    terminal.table(table)


def _share(count: int, counts: tuple[int, ...]) -> str:
    return f"{100 * count / sum(counts):.2f} %"


def _steps(spread: Spread) -> str:
    words = ["never" if value is None else f"{value:g}" for value in (spread.low, spread.median, spread.high)]
    low, median, high = words
    return median if low == high else f"{median} ({low}-{high})"
