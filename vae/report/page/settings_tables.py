"""Tables of settings, data and versions: pairs of a name and a text."""

from __future__ import annotations

from typing import Any

from ...results.overfit_summary import DatasetSummary, RunSummary, SetupSummary
from ...results.training_summary import UNUSED, TrainingSetup, TrainSummary

LONGEST = 400
"""Characters of one text. Longer ones, such as a million indices, are whole in `config.json` and `result.json`."""
Pairs = list[tuple[str, Any]]
SettingsTable = tuple[str, list[tuple[str, str]]]
"""Heading, and pairs of a name and a text."""


def overfit_settings(run: RunSummary, config: dict[str, Any]) -> tuple[SettingsTable, ...]:
    """Return data, batch and loss of the run, then the tables of `config.json`."""
    setup = run.setup
    batch = setup.batch
    pairs: Pairs = [
        *_dataset(setup.dataset),
        ("batch", f"{len(batch.indices)} grids, {batch.swapped} swapped in for rare classes"),
        ("digest of the batch", batch.digest),
        ("indices of the batch", batch.indices),
        *_loss(setup),
    ]
    if setup.steps is not None:
        pairs.append(("steps", f"{setup.steps} ({setup.steps_reason})"))
    return (_table("Data, batch and loss", pairs), *_configuration(config))


def training_settings(run: TrainSummary, config: dict[str, Any]) -> tuple[SettingsTable, ...]:
    """Return data, split and loss of a training run, then the tables of `config.json` for the rest."""
    setup, split = run.setup, run.setup.split
    others = {key: value for key, value in config.items() if key not in ("dataset", "split", "weights")}
    # a reader would take unused settings for ones that had an effect
    others["recipe"] = {key: value for key, value in config["recipe"].items() if key not in UNUSED}
    pairs: Pairs = [
        *_dataset(setup.dataset),
        ("grids to train on", f"{split['train']:,}"),
        ("grids to validate", f"{split['val']:,}"),
        ("grids kept for a test", f"{split['test']:,}"),
        ("split", setup.split_reason),
        ("batches", f"of {setup.batch_size:,}, {setup.loader}"),
        ("updates planned", f"{setup.updates:,}: {setup.epochs:,} epochs of {setup.updates_an_epoch:,}"),
        ("model", f"{setup.model}: {setup.adapter}"),
        ("rate", f"{setup.lr:g}" if setup.lr_reason is None else f"{setup.lr:g}: {setup.lr_reason}"),
        *_loss(setup),
    ]
    return (_table("Data, split and loss", pairs), *_configuration(others))


def text_of(value: Any) -> str:
    """Return a value of a JSON file as text of at most `LONGEST` characters, and a note if it is shortened."""
    if isinstance(value, dict):
        text = ", ".join(f"{key} {text_of(item)}" for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        text = ", ".join(map(text_of, value[:LONGEST]))
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    else:
        text = "none" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... (shortened)"


def _table(title: str, pairs: Pairs) -> SettingsTable:
    return title, [(name, text_of(value)) for name, value in pairs]


def _configuration(config: dict[str, Any]) -> tuple[SettingsTable, ...]:
    """Return a table for each object in `config.json`, and one for its other values."""
    objects = {key: value for key, value in config.items() if isinstance(value, dict)}
    others = {key: value for key, value in config.items() if key not in objects}
    return tuple(
        _table(title.capitalize(), [(key.replace("_", " "), v) for key, v in values.items()])
        for title, values in (*objects.items(), ("run and machine", others))
    )


def _dataset(dataset: DatasetSummary) -> Pairs:
    return [
        ("dataset", dataset.path),
        *([("shards", f"{len(dataset.shards):,}")] if dataset.shards else []),
        ("grids", f"{dataset.grids:,} of {dataset.height} x {dataset.width}, {dataset.classes} classes"),
        ("counts from", dataset.source),
        ("digest of the data", dataset.digest),
    ]


def _loss(setup: SetupSummary | TrainingSetup) -> Pairs:
    pairs: Pairs = [
        ("class weights", f"source {setup.weights.source}, scheme {setup.weights.scheme}"),
        ("focal loss", f"{setup.backend} ({setup.backend_reason})"),
        ("device", setup.device),
    ]
    if setup.preflight is not None:
        pairs.append(("difference from the float64 reference", setup.preflight))
    return pairs
