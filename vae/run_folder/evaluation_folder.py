"""Folder of an evaluation: result and picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ..errors import RunError
from ..results.evaluation_summary import KIND, EvaluatedOn, EvaluationSummary
from ..results.json_values import json_file
from ..results.metrics import measured_on_split
from .folder import RunFolder

if TYPE_CHECKING:
    from ..training.validation import Validation

FILES = ("result.json", "reconstructions.png")


@dataclass(frozen=True)
class EvaluationFolder(RunFolder):
    """The folder of one evaluation."""

    kind: ClassVar[str] = KIND

    def check_no_run(self) -> None:
        """Raise RunError for the folder of a run: the evaluation would replace the result of the run."""
        if (self.path / "config.json").exists():
            raise RunError(
                "the result of the run in this folder would be lost", str(self.path), do="Pass another --out."
            )

    def finish(
        self, on: EvaluatedOn, found: Validation, beta: float, ignore_index: int | None, seconds: float
    ) -> EvaluationSummary:
        """Write the picture and, last, `result.json`: it marks a whole folder."""
        from ..report.reconstructions import Panels, draw_panels

        summary = EvaluationSummary(
            beta=beta, on=on, seconds=seconds, run_dir=str(self.path), **measured_on_split(found)
        )
        self.remove(FILES)
        after = "" if on.step is None else f" of update {on.step:,}"
        title = f"{'all grids' if on.split == 'all' else on.split}, weights{after}"
        panels = Panels.from_validation(found, len(summary.class_accuracy), ignore_index, title)
        self.draw("reconstructions.png", partial(draw_panels, panels))
        self.write("result.json", json_file(summary.json()))
        return summary
