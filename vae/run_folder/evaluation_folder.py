"""The result of an evaluation as plain values, and the folder that it goes into."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ..errors import RunError
from ..results.evaluation_summary import KIND, EvaluatedOn, EvaluationSummary
from ..results.json_values import json_file
from .folder import WrittenFolder

if TYPE_CHECKING:
    from ..training.validation import Validation

FILES = ("result.json", "reconstructions.png")


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
        from ..report.reconstructions import Panels, draw_panels

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
        panels = Panels.from_validation(found, len(summary.class_accuracy), ignore_index, title)
        self.draw("reconstructions.png", partial(draw_panels, panels))
        self.write("result.json", json_file(summary.json()))
        return summary
