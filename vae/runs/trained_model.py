"""Trained model, read from the folder of its run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import nn

from vaefit.cache.regular_file import check_regular

from ..environment.device import fitting_memory
from ..errors import RunError
from ..model.adapter import Adapter, find_adapter
from ..model.network import build_network
from ..model.state import all_tensors
from ..recipe import one_of
from ..run_folder.reader import OVERFIT, StoredRun
from ..run_folder.training_folder import WEIGHTS
from ..training.checkpoint import CheckpointFolder, size_limit

WhichWeights = Literal["best", "last"]
EXTRA = "_extra_state"


@dataclass(frozen=True)
class TrainedModel:
    """The network of a run with the best or the last weights in its folder."""

    run: StoredRun
    model: nn.Module
    adapter: Adapter
    which: WhichWeights
    step: int | None
    """Updates done when it had these weights; None where the folder does not say."""

    @classmethod
    def read(cls, folder: Path) -> TrainedModel:
        """Read the run and load its best weights on the CPU; errors are those of `StoredRun.read` and `load`."""
        return cls.load(StoredRun.read(folder), torch.device("cpu"))

    @classmethod
    def load(cls, run: StoredRun, device: torch.device, which: WhichWeights = "best") -> TrainedModel:
        """Build the network of the run and load its weights.

        Args:
            which: `best` takes `model.safetensors`, the best weights of training or the final ones of an overfit run;
                `last` takes the newest whole checkpoint of training.

        Raises SettingError for another word, and RunError where the weights are absent, damaged or of another network.
        """
        one_of("--checkpoint", which, get_args(WhichWeights))
        settings, config, file = run.settings, run.config, run.folder / WEIGHTS
        if which == "best" and not file.exists():
            do = "Let it go on, until the first weights are kept." if run.result is None else "Run it again."
            raise RunError("the run has no weights", str(run.folder), f"no {WEIGHTS} in it", do)
        loaded = None if settings.model is None else settings.model.load()
        classes, height, width = config.classes, config.height, config.width
        with fitting_memory(f"{classes} classes, 2 grids of {height} x {width}"):
            model = build_network(loaded, classes, height, width, settings.latent_dim, settings.seed, device)
            cells = torch.arange(2 * height * width, device=device) % classes
            # the forward pass also sizes lazy layers, before they can load weights
            adapter = find_adapter(model, cells.view(2, height, width), classes, None, settings.ignore_index)
        if which == "last":
            return cls(run, model, adapter, which, _load_newest(model, run))
        load_weights(model, file)
        return cls(run, model, adapter, which, run.best_step)


def load_weights(model: nn.Module, file: Path) -> None:
    """Load a safetensors file into the model, in place; RunError where it does not hold the weights of this model."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    do = "It is the model.safetensors of another run, or it is damaged: train again, or evaluate another run."
    try:
        state = load_file(check_regular(file, size_limit(model), file.parent))
        found = model.load_state_dict(state, strict=False)
    except (OSError, SafetensorError) as error:
        got = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise RunError("the weights cannot be read", str(file), got, do) from error
    except RuntimeError as error:  # shapes that are not the model's
        got = str(error).splitlines()[-1].strip()
        raise RunError("the weights are not those of the model", str(file), got, do) from error
    # get_extra_state may return anything, and a safetensors file holds tensors alone
    wrong = [name for name in (*found.missing_keys, *found.unexpected_keys) if not name.endswith(EXTRA)]
    if wrong:
        raise RunError("the weights are not those of the model", str(file), ", ".join(wrong[:3]), do)


def _load_newest(model: nn.Module, run: StoredRun) -> int:
    """Load the newest whole checkpoint into the model; return its updates."""
    if run.kind == OVERFIT:
        do = "An overfit run keeps none: use --checkpoint best."
        raise RunError("the run has no checkpoint", str(run.folder), do=do)
    folder = CheckpointFolder.from_run(run.folder)
    checkpoint = folder.newest(size_limit(model))
    if checkpoint is None:
        raise RunError("the run has no checkpoint", str(run.folder), do="Use --checkpoint best.")
    stored, tensors = checkpoint.tensors, all_tensors(model)
    wrong = [n for n, t in tensors.items() if f"model.{n}" not in stored or stored[f"model.{n}"].shape != t.shape]
    if wrong:
        do = "It is that of another run: use --checkpoint best."
        raise RunError("the checkpoint is not of the model", str(folder.path), ", ".join(wrong[:3]), do)
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(stored[f"model.{name}"])
    return checkpoint.step
