"""The weights of a trained model, read again."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ..errors import RunError


def load_weights(model: nn.Module, file: Path) -> None:
    """Give the model, in place, the weights in a safetensors file; RunError where they are not its own."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    do = "It is the model.safetensors of another run, or it is damaged: train again, or evaluate another run."
    try:
        state = load_file(file)
        found = model.load_state_dict(state, strict=False)
    except (OSError, SafetensorError) as error:
        raise RunError("the weights cannot be read", str(file), str(error).splitlines()[0], do) from error
    except RuntimeError as error:  # shapes that are not the model's
        raise RunError(
            "the weights are not those of the model", str(file), str(error).splitlines()[-1].strip(), do
        ) from error
    wrong = [*found.missing_keys, *found.unexpected_keys]
    if wrong:
        raise RunError("the weights are not those of the model", str(file), ", ".join(wrong[:3]), do)
