"""The step of a batch that several ranks hold together: each goes forward and back on its rows, all move alike."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..objective.objective import Losses
from ..optim.train_step import Step
from ..recipe import Recipe
from .global_objective import GlobalObjective
from .process_group import ProcessGroup, losing

_Parts = tuple[Tensor | None, ...]


class _Forward(nn.Module):
    """A model and its objective as one module, so that what has no part in the loss has none in the output either.

    DistributedDataParallel waits for the gradient of every parameter that an output hangs on.
    """

    def __init__(self, step: Step, objective: GlobalObjective) -> None:
        super().__init__()
        self.model = step.model
        self._step, self._objective = step, objective

    def forward(self, inputs: Tensor, targets: Tensor, beta: float, noise: Tensor | None) -> _Parts:
        """The parts of the `Losses`, which are all that it understands: plain tensors."""
        losses = self._step.losses(self._objective, inputs, targets, beta, noise)
        return tuple(getattr(losses, part.name) for part in fields(Losses))


@dataclass
class DistributedStep(Step):
    """`Step` over the ranks of a job; its gradients, and so its updates, are those of the whole batch on every rank."""

    wrapped: DistributedDataParallel = field(kw_only=True)

    @classmethod
    def from_step(cls, job: ProcessGroup, step: Step, recipe: Recipe) -> DistributedStep:
        """The same step over the ranks of a job; the parameters become those of rank 0."""
        module = _Forward(step, GlobalObjective.from_objective(job, step.objective))
        # with z = mu and beta 0 nothing hangs on the variance; a model of one's own may leave out whatever it likes
        all_used = step.adapter.ours and (recipe.z == "sample" or (recipe.beta > 0 and recipe.beta_ramp is None))
        wrapped = DistributedDataParallel(module, find_unused_parameters=not all_used)
        return cls(**vars(step), wrapped=wrapped)

    def forward(self, inputs: Tensor, targets: Tensor, beta: float | Tensor, noise: Tensor | None = None) -> Losses:
        """As `Step`, of this rank's rows; see `GlobalObjective` for what is of the whole batch."""
        with losing():
            return Losses(*self.wrapped(inputs, targets, beta, noise))

    def differentiate(self, losses: Losses) -> Tensor:
        """As `Step`, with the gradients of all ranks; waits for them."""
        with losing():
            return super().differentiate(losses)
