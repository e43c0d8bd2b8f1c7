"""Warnings of the monitor of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

WarningKind = Literal["class_died", "class_not_learned", "collapsed", "non_finite"]


@dataclass(frozen=True)
class TrainingWarning:
    """A warning; `str()` gives in one sentence the step, the finding with numbers, and the advice."""

    kind: ClassVar[WarningKind]

    step: int
    """Step of the check that found it; the first step is 1."""
    label: int | None = None
    """Class of the warning, if any."""


@dataclass(frozen=True)
class ClassDied(TrainingWarning):
    """A class that was predicted correctly is no longer predicted correctly."""

    kind: ClassVar[WarningKind] = "class_died"

    recall: float = 0.0
    """Recall over the last `steps` steps."""
    before: float = 0.0
    """Recall in the steps before these."""
    cells: int = 0
    """Cells of the class in the targets of these steps."""
    steps: int = 0

    def __str__(self) -> str:
        return (
            f"step {self.step}: class {self.label} died: its recall was {self.before:.2f} and is "
            f"{self.recall:.3f} over the {self.cells:,} cells of it in the last {self.steps} steps; look at what "
            f"changed (class weights, data, learning rate), and go back to a checkpoint from before."
        )


@dataclass(frozen=True)
class ClassNotLearned(TrainingWarning):
    """A class of the targets has almost no correct cells over many steps."""

    kind: ClassVar[WarningKind] = "class_not_learned"

    right: int = 0
    """Cells of the class that were predicted correctly."""
    cells: int = 0
    """Cells of the class in the targets of these steps."""
    steps: int = 0

    def __str__(self) -> str:
        return (
            f"step {self.step}: class {self.label} is not learned: of its {self.cells:,} cells in the last "
            f"{self.steps} steps, {self.right:,} were predicted rightly; check its class weight, and try "
            f"`vaefit-cli overfit` on a batch that holds it."
        )


@dataclass(frozen=True)
class Collapsed(TrainingWarning):
    """The output does not depend on the input; `label` is the class that covers the output, if one does."""

    kind: ClassVar[WarningKind] = "collapsed"

    skill: float | None = None
    """Skill of the checked batch; None, as `variation`, where the monitor has counts only."""
    variation: float | None = None
    share: float | None = None
    """Share of the predictions that are `label`; None where no class covers them."""
    accuracy: float = 0.0
    """Pixel accuracy of the checked predictions."""

    def __str__(self) -> str:
        found = "one picture for all inputs" if self.label is None else f"class {self.label} nearly everywhere"
        numbers = [f"pixel accuracy {self.accuracy:.3f}"]
        numbers += [] if self.share is None else [f"{100 * self.share:.1f} % of the predictions"]
        numbers += [] if self.skill is None else [f"skill {self.skill:.3f}"]
        numbers += [] if self.variation is None else [f"variation {self.variation:.3f}"]
        return (
            f"step {self.step}: the output does not depend on the input, but is {found} ({', '.join(numbers)}); lower "
            f"beta and the learning rate, check the class weights, and try `vaefit-cli overfit` on a batch."
        )


@dataclass(frozen=True)
class NonFiniteLoss(TrainingWarning):
    """The loss was infinite or not a number."""

    kind: ClassVar[WarningKind] = "non_finite"

    loss: float = float("nan")
    first: int = 0
    """First step with such a loss."""

    def __str__(self) -> str:
        return (
            f"step {self.step}: the loss has been {self.loss} since step {self.first}; go back to a checkpoint from "
            f"before, and lower the learning rate or clip the gradient."
        )
