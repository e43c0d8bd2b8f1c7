"""Calls of the user's model: its exceptions become errors that say whose they are."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from ..environment.device import memory_is_full
from ..errors import UserCodeError, VaefitError
from .beta_vae import BetaVAE

_COMPILERS = ("torch._dynamo", "torch._inductor")


@contextmanager
def user_code(model: nn.Module) -> Iterator[None]:
    """Context manager around a call of a model: raise a UserCodeError for an exception of a user's model.

    An exception of a BetaVAE is vaefit's own. A full memory and a failed compiler are no fault of the model.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        other = memory_is_full(error) or type(error).__module__.startswith(_COMPILERS)
        if type(model) is BetaVAE or isinstance(error, VaefitError) or other:
            raise
        raised = UserCodeError.from_exception(error, type(model).__name__)
        raised.not_finite = raised.not_finite or _holds_nan(model, error)
        raise raised from error


def _holds_nan(model: nn.Module, error: BaseException) -> bool:
    """Return True if a parameter is not finite, or a variable of the calls that raised the error holds NaN."""
    held = [v for f, _ in traceback.walk_tb(error.__traceback__) for v in f.f_locals.values() if isinstance(v, Tensor)]
    floats = [t.detach() for t in held if t.is_floating_point()]
    return any(bool(t.isnan().any()) for t in floats) or not all(bool(p.isfinite().all()) for p in model.parameters())
