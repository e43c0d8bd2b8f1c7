"""What the monitor of a training run warns of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

WarningKind = Literal["class_died", "class_not_learned", "collapsed", "non_finite"]


@dataclass(frozen=True)
class TrainingWarning:
    """One warning; `str()` says in one sentence what was found, when, in numbers, and what to do."""

    kind: ClassVar[WarningKind]

    step: int
    """The step at which it was found; the first one is 1."""
    label: int | None = None
    """The class that it is about."""


@dataclass(frozen=True)
class ClassDied(TrainingWarning):
    """A class that was predicted rightly is not any more."""

    kind: ClassVar[WarningKind] = "class_died"

    recall: float = 0.0
    """Over the last `steps` steps."""
    before: float = 0.0
    """Its recall in the steps before these."""
    cells: int = 0
    """How many of its cells the targets of these steps held."""
    steps: int = 0

    def __str__(self) -> str:
        return (
            f"step {self.step}: class {self.label} died: its recall was {self.before:.2f} and is "
            f"{self.recall:.3f} over the {self.cells:,} cells of it in the last {self.steps} steps; look at what "
            f"changed (class weights, data, learning rate), and go back to a checkpoint from before."
        )


@dataclass(frozen=True)
class ClassNotLearned(TrainingWarning):
    """A class that the targets hold has hardly been predicted rightly for long."""

    kind: ClassVar[WarningKind] = "class_not_learned"

    right: int = 0
    """How many of its cells were predicted rightly."""
    cells: int = 0
    """How many of its cells the targets of these steps held."""
    steps: int = 0

    def __str__(self) -> str:
        return (
            f"step {self.step}: class {self.label} is not learned: of its {self.cells:,} cells in the last "
            f"{self.steps} steps, {self.right:,} were predicted rightly; check its class weight, and try "
            f"`vaefit-cli overfit` on a batch that holds it."
        )


@dataclass(frozen=True)
class Collapsed(TrainingWarning):
    """The output does not depend on the input; `label` is the class that covers it, if one does."""

    kind: ClassVar[WarningKind] = "collapsed"

    skill: float | None = None
    """Of the batch that was looked at; None, as the next, where only counts were."""
    retrieval: float | None = None
    share: float | None = None
    """Of the predictions that are `label`; None where no class covers them."""
    accuracy: float = 0.0
    """Pixel accuracy of what was looked at."""

    def __str__(self) -> str:
        found = "one picture for all inputs" if self.label is None else f"class {self.label} nearly everywhere"
        numbers = [f"pixel accuracy {self.accuracy:.3f}"]
        numbers += [] if self.share is None else [f"{100 * self.share:.1f} % of the predictions"]
        numbers += [] if self.skill is None else [f"skill {self.skill:.3f}"]
        numbers += [] if self.retrieval is None else [f"retrieval {self.retrieval:.3f}"]
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
    """The first step at which it was."""

    def __str__(self) -> str:
        return (
            f"step {self.step}: the loss is {self.loss} since step {self.first}; go back to a checkpoint from before, "
            f"and lower the learning rate or clip the gradient."
        )
