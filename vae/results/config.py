"""Content of `config.json`: every setting of a run, its command and date, and the versions that a rerun needs."""

from __future__ import annotations

import platform
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

import numpy as np
import torch

from ..environment.command_line import command_line
from ..environment.hardware import vaefit_version
from ..fitting.result import Prepared
from ..settings import RunSettings
from ..training.prepare import PreparedTraining
from .json_values import plain


def config_json(settings: RunSettings, prepared: Prepared | PreparedTraining) -> dict[str, Any]:
    """Return every setting, the command, the date, the machine, the sizes of the grids and the versions."""
    values = {f.name: getattr(settings, f.name) for f in fields(settings) if f.name != "recipe"}
    if settings.model is not None:
        values["model"] = f"{settings.model.where}:{settings.model.name}"
        values["model_arguments"] = {key: repr(value) for key, value in settings.model.arguments.items()}
    found: dict[str, Any] = plain(
        {
            "settings": values,
            "recipe": asdict(settings.recipe),
            "command": command_line(),
            "date": datetime.now().astimezone().isoformat(timespec="seconds"),
            "device": str(prepared.device),
            "backend": str(prepared.backend),
            "threads": torch.get_num_threads(),
            "height": prepared.dataset.shape[1],
            "width": prepared.dataset.shape[2],
            "classes": prepared.dataset.classes,
            "versions": {
                "vaefit": vaefit_version(),
                "python": platform.python_version(),
                "torch": torch.__version__,
                "numpy": np.__version__,
                "platform": platform.platform(),
            },
        }
    )
    return found
