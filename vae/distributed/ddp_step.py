"""Training step over several ranks: each computes its rows of the batch, and all apply the same update."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..objective.objective import Losses
from ..optim.train_step import Step
from ..recipe import Recipe
from .global_objective import GlobalObjective
from .process_group import ProcessGroup, lost_rank_errors


class _Forward(nn.Module):
    """Module of a model with its objective, so that its outputs depend only on parameters that the loss depends on.

    DistributedDataParallel waits for the gradient of every parameter that an output depends on.
    """

    def __init__(self, step: Step, objective: GlobalObjective) -> None:
        super().__init__()
        self.model = step.model
        self._step, self._objective = step, objective

    def forward(self, inputs: Tensor, targets: Tensor, beta: float, noise: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the fields of `Losses` as a tuple, since DistributedDataParallel handles tensors only."""
        losses = self._step.losses(self._objective, inputs, targets, beta, noise)
        return tuple(getattr(losses, part.name) for part in fields(Losses))


@dataclass
class DistributedStep(Step):
    """`Step` over the ranks of a job: every rank has the gradients of the whole batch, and so the same updates."""

    wrapped: DistributedDataParallel = field(kw_only=True)

    @classmethod
    def from_step(cls, job: ProcessGroup, step: Step, recipe: Recipe) -> DistributedStep:
        """Return the same step over the ranks of a job; the parameters become those of rank 0."""
        module = _Forward(step, GlobalObjective.from_objective(job, step.objective))
        # with z = mu and beta 0 the loss does not depend on the variance; a user's model may leave any parameter unused
        all_used = step.adapter.ours and (recipe.z == "sample" or (recipe.beta > 0 and recipe.beta_ramp is None))
        with lost_rank_errors():
            wrapped = DistributedDataParallel(module, find_unused_parameters=not all_used)
        return cls(**vars(step), wrapped=wrapped)

    def forward(self, inputs: Tensor, targets: Tensor, beta: float | Tensor, noise: Tensor | None = None) -> Losses:
        """Return the losses of this rank's rows; `GlobalObjective` says which values are of the whole batch."""
        with lost_rank_errors():
            return Losses(*self.wrapped(inputs, targets, beta, noise))

    def differentiate(self, losses: Losses) -> Tensor:
        """Differentiate as `Step`, with the mean of the gradients of all ranks; waits for the other ranks."""
        with lost_rank_errors():
            return super().differentiate(losses)
