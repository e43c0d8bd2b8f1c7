"""evaluation_summary."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .json_values import plain
from .overfit_summary import DatasetSummary

if TYPE_CHECKING:
    pass


KIND = "evaluate"


@dataclass(frozen=True)
class EvaluatedOn:
    """What is measured, and on what."""

    run: str
    """Folder of the run that made the model."""
    trained_by: str
    """`train` or `overfit`."""
    checkpoint: str
    """`best` or `last`."""
    step: int | None
    """Updates done when the model had these weights; None where the folder does not say."""
    split: str
    split_reason: str
    grids: int
    """Of the split."""
    changed: tuple[str, ...]
    """What of the run's own data is not as it was when the run began, in words."""
    dataset: DatasetSummary
    model: str
    """Class and size, in words."""
    adapter: str
    backend: str
    backend_reason: str
    device: str


@dataclass(frozen=True)
class EvaluationSummary:
    """A trained model measured on every grid of a split, with z = mu."""

    kind: str
    pixel_accuracy: float
    macro_accuracy: float
    worst_class_accuracy: float
    worst_class: int
    class_accuracy: tuple[float | None, ...]
    """None for a class that the split does not hold."""
    confusion: tuple[tuple[int, ...], ...]
    """(C, C), row = target, column = prediction."""
    background_share: float
    majority_share: float
    skill: float | None
    loss: float
    focal: float
    beta: float
    """With which the loss was taken: that of the update that would follow on the weights, as in the run."""
    kl: float | None
    """Nats a grid; None, as the next two, where the model gives no mu and logvar."""
    kl_dimensions: tuple[float, ...] | None
    active_dimensions: int | None
    on: EvaluatedOn
    seconds: float
    run_dir: str

    def json(self) -> dict[str, Any]:
        """What `evaluate --json` prints; what was measured on stands beside the results."""
        found: dict[str, Any] = plain(asdict(self))
        on, where = found.pop("on"), found.pop("run_dir")
        return {**found, **on, "run_dir": where}
