"""Settings, data and versions as pairs of words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...results.overfit_summary import DatasetSummary, RunSummary, SetupSummary
from ...results.training_summary import UNUSED, TrainingSetup, TrainSummary

LONGEST = 400
"""Characters of one value: a batch may have a million indices, and `config.json` and `result.json` have them all."""


@dataclass(frozen=True)
class SettingsTables:
    """Pairs of a name and a value under one heading."""

    title: str
    pairs: tuple[tuple[str, str], ...]


def facts(run: RunSummary, config: dict[str, Any]) -> tuple[SettingsTables, ...]:
    """Data, batch and loss of the run, then what `config.json` holds."""
    return (SettingsTables("Data, batch and loss", _setup(run.setup)), *_configuration(config))


def training_facts(run: TrainSummary, config: dict[str, Any]) -> tuple[SettingsTables, ...]:
    """Data, split and loss of a training run, then what `config.json` holds beside them."""
    kept = {key: value for key, value in config.items() if key not in ("dataset", "split", "weights")}
    # what would be read as if it had been in force
    kept["recipe"] = {key: value for key, value in config["recipe"].items() if key not in UNUSED}
    return (SettingsTables("Data, split and loss", _training_setup(run.setup)), *_configuration(kept))


def _configuration(config: dict[str, Any]) -> tuple[SettingsTables, ...]:
    """What `config.json` holds."""
    groups = []
    inner = {key: value for key, value in config.items() if isinstance(value, dict)}
    outer = {key: value for key, value in config.items() if key not in inner}
    for title, values in (*inner.items(), ("machine", outer)):
        pairs = tuple((key.replace("_", " "), word(value)) for key, value in values.items())
        groups.append(SettingsTables(title.capitalize(), pairs))
    return tuple(groups)


def word(value: Any) -> str:
    """A value of a JSON file in words, of bounded length."""
    if isinstance(value, dict):
        text = ", ".join(f"{key} {word(item)}" for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        text = ", ".join(map(word, value[:LONGEST]))
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    else:
        text = "none" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... (shortened)"


def _setup(setup: SetupSummary) -> tuple[tuple[str, str], ...]:
    batch, weights = setup.batch, setup.weights
    pairs = [
        *_dataset(setup.dataset),
        ("batch", f"{len(batch.indices)} grids, {batch.swapped} swapped in for rare classes"),
        ("digest of the batch", batch.digest),
        ("indices of the batch", word(batch.indices)),
        ("class weights", f"source {weights.source}, scheme {weights.scheme}"),
        ("focal loss", f"{setup.backend} ({setup.backend_reason})"),
        ("device", setup.device),
    ]
    if setup.preflight is not None:
        pairs.append(("difference from the float64 reference", str(setup.preflight)))
    if setup.steps is not None:
        pairs.append(("steps", f"{setup.steps} ({setup.steps_reason})"))
    return tuple((name, word(value)) for name, value in pairs)


def _training_setup(setup: TrainingSetup) -> tuple[tuple[str, str], ...]:
    weights, split = setup.weights, setup.split
    pairs = [
        *_dataset(setup.dataset),
        ("grids to train on", f"{split['train']:,}"),
        ("grids to validate", f"{split['val']:,}"),
        ("grids kept for a test", f"{split['test']:,}"),
        ("split", setup.split_reason),
        ("batches", f"of {setup.batch_size:,}, {setup.loader}"),
        ("updates planned", f"{setup.updates:,}: {setup.epochs:,} epochs of {setup.updates_an_epoch:,}"),
        ("model", f"{setup.model}: {setup.adapter}"),
        ("class weights", f"source {weights.source}, scheme {weights.scheme}"),
        ("focal loss", f"{setup.backend} ({setup.backend_reason})"),
        ("rate", f"{setup.lr:g}" if setup.lr_reason is None else f"{setup.lr:g}: {setup.lr_reason}"),
        ("device", setup.device),
    ]
    if setup.preflight is not None:
        pairs.append(("difference from the float64 reference", str(setup.preflight)))
    return tuple((name, word(value)) for name, value in pairs)


def _dataset(dataset: DatasetSummary) -> list[tuple[str, str]]:
    shards = [("shards", f"{len(dataset.shards):,}")] if dataset.shards else []
    return [
        ("dataset", dataset.path),
        *shards,
        ("grids", f"{dataset.grids:,} of {dataset.height} x {dataset.width}, {dataset.classes} classes"),
        ("counts from", dataset.source),
        ("digest of the data", word(dataset.digest)),
    ]
