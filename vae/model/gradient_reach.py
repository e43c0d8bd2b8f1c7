"""Reach of the gradient: the parameters of a model that no update of a run changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .adapter import Adapter
from .state import evaluating

NAMED = 3
"""Layers that a text names. It counts the others."""


@dataclass(frozen=True)
class NotUpdated:
    """Parameters that no update changed, and the reasons."""

    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Number of the parameters and their layers, in a sentence for each reason."""
    outside: str = ""
    """Layers that the model uses and its `parameters()` does not give; their note is the last one."""


class GradientReach:
    """Record of the parameters that got a gradient in an update of a run; call `observe` after each update."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._own, self._hidden = dict(model.named_parameters()), dict(_hidden_parameters(model))
        every = {**self._own, **self._hidden}
        self._missed = {name: parameter for name, parameter in every.items() if parameter.requires_grad}
        self._observed = False

    def observe(self) -> None:
        """Take in the gradients of an update; one that is not finite counts as a gradient, one of zeros does not."""
        self._observed = True
        self._missed = {n: p for n, p in self._missed.items() if p.grad is None or not bool(p.grad.any())}

    def not_updated(self, adapter: Adapter, inputs: Tensor) -> NotUpdated:
        """Return the parameters that no update changed; only frozen ones where no update was observed.

        Parameters that only logvar depends on are left out: with z = mu and beta 0 the loss does not depend on logvar.
        """
        cut = {name for name in self._missed if name in self._own and self._observed}
        if cut and adapter.gives.latent:
            cut -= self._logvar_alone(adapter, inputs)
        frozen = {name for name, parameter in self._own.items() if not parameter.requires_grad}
        hidden = {name for name in self._hidden if name not in self._missed}
        every = {**self._own, **self._hidden}

        def size(names: Iterable[str]) -> str:
            return f"{sum(every[name].numel() for name in names):,}"

        total = f"of {size(self._own)} parameters"
        outside = f"no update changes {size(hidden)} parameters that model.parameters() does not give"
        reasons = {
            f"no gradient reaches {size(cut)} {total}: {layers_of(cut, self._own)}": cut,
            f"{size(frozen)} {total} are frozen: {layers_of(frozen, self._own)}": frozen,
            f"{outside}: {layers_of(hidden, self._hidden)}; keep layers in an nn.ModuleList or nn.ModuleDict": hidden,
        }
        names = tuple(name for name in every if name in cut | frozen | hidden)
        notes = tuple(note for note, found in reasons.items() if found)
        return NotUpdated(names, notes, layers_of(hidden, self._hidden))

    def _logvar_alone(self, adapter: Adapter, inputs: Tensor) -> set[str]:
        """Return the names of the parameters that logvar depends on and mu does not."""
        with evaluating(self._model), torch.enable_grad():
            try:
                _, mu, logvar = adapter.outputs(self._model, inputs)
            except Exception:  # a user's model that raised in an update may raise here again
                return set(self._own)
            assert mu is not None  # the adapter found both
            assert logvar is not None
            return reached(self._model, logvar.sum()) - reached(self._model, mu.square().sum())


def layers_of(parameters: Iterable[str], every: Iterable[str]) -> str:
    """Return the names of the largest parts of the model that hold only these of `every` parameter."""
    left, every = set(parameters), list(every)
    names: list[str] = []
    while left:
        first = next(name for name in every if name in left)
        pieces = first.split(".")
        for depth in range(1, len(pieces) + 1):
            part = ".".join(pieces[:depth])
            inside = {name for name in every if name == part or name.startswith(part + ".")}
            if inside <= left or depth == len(pieces):
                names.append(part)
                left -= inside
                break
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def reached(model: nn.Module, value: Tensor) -> set[str]:
    """Return the names of the parameters whose gradient of `value` is not 0; a gradient that is not finite counts."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not value.requires_grad:
        return set()
    found = torch.autograd.grad(value, [p for _, p in named], retain_graph=True, allow_unused=True)
    return {name for (name, _), g in zip(named, found, strict=True) if g is not None and not bool((g == 0).all())}


def _hidden_parameters(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters in plain lists, tuples, dicts and tensors, which `model.parameters()` does not give."""
    own = {id(parameter) for parameter in model.parameters()}
    for where, module in model.named_modules():
        for attribute, value in vars(module).items():
            name = f"{where}.{attribute}" if where else attribute
            parts = {name: value}
            if isinstance(value, Mapping):
                parts = {f"{name}.{key}": part for key, part in value.items()}
            elif isinstance(value, (list, tuple)):
                parts = {f"{name}.{index}": part for index, part in enumerate(value)}
            for part_name, part in parts.items():
                inside = part.named_parameters(part_name) if isinstance(part, nn.Module) else ((part_name, part),)
                for full_name, parameter in inside:
                    is_parameter = isinstance(parameter, Tensor) and parameter.is_leaf and parameter.requires_grad
                    if is_parameter and id(parameter) not in own:
                        own.add(id(parameter))
                        yield full_name, parameter
