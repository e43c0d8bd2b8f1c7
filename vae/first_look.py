"""The first look at a model, on its first batch: how it is called, its initialisation, its first logits."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from .adapter import Adapter, find_adapter
from .compatibility import device_of, first_logits
from .init import initialise
from .recipe import Recipe
from .seeded import seeded
from .snapshot import Snapshot


@dataclass(frozen=True)
class FirstLook:
    """A model that is ready for its first step."""

    adapter: Adapter
    inputs: Tensor
    """The batch as the model takes it."""
    logits: Tensor
    """(B, C, H, W) of the initialised model, detached."""
    before: Snapshot | None
    """The model before it was initialised, if that was to be kept."""

    @classmethod
    def take(
        cls,
        model: nn.Module,
        labels: Tensor,  # (B, H, W) int64 on the model's device
        recipe: Recipe,
        seed: int,
        classes: int | None = None,
        likely: int | None = None,
        ignore_index: int | None = None,
        keep: bool = False,
    ) -> FirstLook:
        """Find out how the model is called, and initialise it in place as the recipe says, drawing by `seed`.

        `classes`, `likely` and `ignore_index` are those of `find_adapter`. Raises RunError as it does, and where no
        gradient leads from the logits to a parameter.
        """
        with seeded(seed, device_of(model)):
            adapter = find_adapter(model, labels, classes, likely, ignore_index)
            before = Snapshot.of(model) if keep else None
            inputs = adapter.inputs(labels, model)
            if recipe.init is not None:
                initialise(model, recipe.init, lambda: model(inputs))
            return cls(adapter, inputs, first_logits(model, adapter, inputs), before)
