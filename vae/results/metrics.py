"""Metrics of a model as plain values, under the names that they have in `result.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..fitting.result import OverfitResult
from ..training.validation import Validation
from .json_values import record_values

if TYPE_CHECKING:
    from typing_extensions import Self

Confusion = tuple[tuple[int, ...], ...]
"""(C, C) counts, row = target, column = prediction."""
ACCURACIES = ("pixel_accuracy", "macro_accuracy", "worst_class_accuracy", "worst_class", "class_accuracy")
BASELINES = ("background_share", "majority_share", "skill")


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Metrics of a model on a set of grids, reconstructed with z = mu; base of the records in `result.json`."""

    KEYS: ClassVar[tuple[str, ...]]
    """The first keys of `result.json`; those of the other fields follow in the order of the fields."""
    NESTED: ClassVar[str] = "setup"
    """The field whose own fields stand in `result.json` beside the others, behind them."""

    pixel_accuracy: float
    macro_accuracy: float
    worst_class_accuracy: float
    worst_class: int
    class_accuracy: tuple[float | None, ...]
    """Recall of each class; None for a class that the grids do not hold."""
    background_share: float
    majority_share: float
    skill: float | None

    def json(self) -> dict[str, Any]:
        """Return what `--json` prints, one flat object with the folder at its end."""
        found = record_values(self)
        nested, folder = found.pop(self.NESTED), found.pop("run_dir")
        return {**{key: found[key] for key in self.KEYS}, **found, **nested, "run_dir": folder}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        """Read what `json` returned; msgspec.ValidationError names the key of a value that does not fit."""
        import msgspec

        return msgspec.convert({**found, cls.NESTED: found}, cls)


@dataclass(frozen=True, kw_only=True)
class SplitMetrics(Metrics):
    """Metrics of a model on a split of a dataset."""

    confusion: Confusion
    loss: float | None
    """The objective; None, as the next one, where it is not finite."""
    focal: float | None
    kl: float | None
    """Nats a grid; None, as the next two, where the model returns no mu and logvar."""
    kl_dimensions: tuple[float, ...] | None
    active_dimensions: int | None


def measured(found: OverfitResult | Validation) -> dict[str, Any]:
    """Return the accuracies, confusion counts and baselines as the fields of a record."""
    accuracies = found.accuracies
    return {
        "pixel_accuracy": accuracies.pixel,
        "macro_accuracy": accuracies.macro,
        "worst_class_accuracy": accuracies.worst,
        "worst_class": accuracies.worst_class,
        "class_accuracy": accuracies.classes,
        "confusion": tuple(map(tuple, found.confusion.tolist())),
        "background_share": found.shares.background,
        "majority_share": found.shares.majority,
        "skill": found.skill,
    }


def measured_on_split(found: Validation) -> dict[str, Any]:
    """Return the fields of `SplitMetrics` that a validation measured."""
    names = ("loss", "focal", "kl", "kl_dimensions", "active_dimensions")
    return {**measured(found), **{name: getattr(found, name) for name in names}}
