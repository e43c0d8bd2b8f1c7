"""The result of an evaluation as plain values, and the folder that it goes into."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import RunError
from .jsonable import json_file, plain
from .summary import DatasetSummary
from .written import WrittenFolder

if TYPE_CHECKING:
    from ..training.validation import Validation

KIND = "evaluate"
FILES = ("result.json", "reconstructions.png")


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


@dataclass(frozen=True)
class EvaluationFolder(WrittenFolder):
    """The folder of one evaluation."""

    kind: ClassVar[str] = KIND

    def check_no_run(self) -> None:
        """Raise RunError for the folder of a run, whose own result would be replaced."""
        if (self.path / "config.json").exists():
            raise RunError(
                "the result of the run in this folder would be lost", str(self.path), do="Pass another --out."
            )

    def finish(
        self, on: EvaluatedOn, found: Validation, beta: float, ignore_index: int | None, seconds: float
    ) -> EvaluationSummary:
        """Write the picture and, last, `result.json`: where that is there, all is."""
        from .pictures import Panels, draw_panels

        accuracies = found.accuracies
        summary = EvaluationSummary(
            kind=KIND,
            pixel_accuracy=accuracies.pixel,
            macro_accuracy=accuracies.macro,
            worst_class_accuracy=accuracies.worst,
            worst_class=accuracies.worst_class,
            class_accuracy=accuracies.classes,
            confusion=tuple(map(tuple, found.confusion.tolist())),
            background_share=found.shares.background,
            majority_share=found.shares.majority,
            skill=found.skill,
            loss=found.loss,
            focal=found.focal,
            beta=beta,
            kl=found.kl,
            kl_dimensions=found.kl_dimensions,
            active_dimensions=found.active_dimensions,
            on=on,
            seconds=seconds,
            run_dir=str(self.path),
        )
        self.remove(FILES)
        after = "" if on.step is None else f" of update {on.step:,}"
        title = f"{'all grids' if on.split == 'all' else on.split}, weights{after}"
        panels = Panels.of_validation(found, len(summary.class_accuracy), ignore_index, title)
        self.draw("reconstructions.png", partial(draw_panels, panels))
        self.write("result.json", json_file(summary.json()))
        return summary
