"""Monitor as a callback of PyTorch Lightning, under either package name; `vaefit.vae` imports it on first use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from vaefit.kernels import confusion_counts

from ..errors import RunError
from .collapse_monitor import CollapseMonitor
from .warnings import TrainingWarning

NAMES = ("lightning.pytorch", "pytorch_lightning")
NO_LABEL = -100
"""The kernels' ignore_index where no label is ignored."""

if TYPE_CHECKING:
    from lightning.pytorch import Callback
else:

    def _callback_class() -> type:
        """Return `Callback` of the package that the caller imported, else of the first installed one."""
        for name in sorted(NAMES, key=lambda name: name not in sys.modules):
            try:
                return importlib.import_module(name).Callback
            except ModuleNotFoundError as error:
                if error.name not in (name, name.partition(".")[0]):
                    raise  # the package is installed, but one of its requirements is not
        raise ImportError(
            "CollapseCallback needs PyTorch Lightning, which is not installed. Run: pip install lightning"
        )

    Callback = _callback_class()


class CollapseCallback(Callback):
    """Lightning callback that passes the dict which `training_step` returns to a `CollapseMonitor`.

    It takes `counts` (C, C) if they are returned, else counts `logits` (B, C, H, W) or `predictions` (B, H, W) against
    `targets` (B, H, W). Collapse by skill and variation is checked only if one of these two and the targets are
    returned. The loss is checked too. Warnings go to the logger `vaefit`. The state of the monitor is saved in
    checkpoints. With several devices, each rank monitors the grids of its own batches.

    Args:
        num_classes: C; None takes it from the counts or the logits.
        stop: end the training at the first warning.
        counts, logits, predictions, targets: keys of the dict.
        ignore_index: label of cells that are not counted.
        on_warning: called with each warning, instead of the logger.
        settings: `every`, `window`, `patience` and `warmup` of the monitor.

    Raises RunError at the first batch without any of the keys.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        stop: bool = False,
        counts: str = "counts",
        logits: str = "logits",
        predictions: str = "predictions",
        targets: str = "targets",
        ignore_index: int | None = None,
        on_warning: Callable[[TrainingWarning], None] | None = None,
        **settings: int,
    ) -> None:
        super().__init__()
        self.stop = stop
        self._counts, self._logits, self._predictions, self._targets = counts, logits, predictions, targets
        self._ignore_index = ignore_index
        self._options: dict[str, Any] = {"ignore_index": ignore_index, "on_warning": on_warning, **settings}
        self._saved: dict[str, Any] | None = None
        # raises for a wrong setting now, not at the first batch
        monitor = CollapseMonitor(2 if num_classes is None else num_classes, **self._options)
        self.monitor: CollapseMonitor | None = None if num_classes is None else monitor
        """None until the number of classes is known."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Update the monitor; a step that Lightning skipped does not count."""
        if outputs is None or (isinstance(outputs, Mapping) and not outputs):
            return
        found: Mapping[str, Any] = outputs if isinstance(outputs, Mapping) else {"loss": outputs}
        counts: Tensor | None = found.get(self._counts)
        targets: Tensor | None = found.get(self._targets)
        output: Tensor | None = found.get(self._logits, found.get(self._predictions))
        if targets is None or output is None:
            output = targets = None
        if self.monitor is None and (counts is not None or output is not None):
            self.monitor = self._start_monitor(pl_module, counts, output)
        if counts is None and output is not None and targets is not None and self.monitor is not None:
            ignored = NO_LABEL if self._ignore_index is None else self._ignore_index
            counts = confusion_counts(output.detach(), targets, ignored, num_classes=self.monitor.num_classes)
        if counts is None or self.monitor is None:
            raise RunError(
                "training_step returned nothing that CollapseCallback can monitor",
                f"{type(pl_module).__name__}.training_step",
                got=", ".join(f"{name}: {type(value).__name__}" for name, value in found.items()),
                do=f"Return a dict with `{self._counts}`, or with `{self._logits}` or `{self._predictions}` and "
                f"`{self._targets}`, beside `loss`; or name its keys, as in CollapseCallback(counts='confusion').",
            )
        if self.monitor.update(counts, output, targets, loss=found.get("loss")) and self.stop:
            trainer.should_stop = True

    def _start_monitor(self, pl_module: Any, counts: Tensor | None, output: Tensor | None) -> CollapseMonitor:
        if counts is not None:
            classes = counts.shape[0]
        elif output is not None and output.is_floating_point():
            classes = output.shape[1]
        else:
            raise RunError(
                "the number of classes is not known from predictions",
                f"{type(pl_module).__name__}.training_step",
                do="Pass num_classes to CollapseCallback.",
            )
        monitor = CollapseMonitor(classes, **self._options)
        if self._saved is not None:
            monitor.load_state_dict(self._saved)
        return monitor

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the monitor for a checkpoint; empty before the first batch."""
        return (self._saved or {}) if self.monitor is None else self.monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        if not state_dict:
            return
        if self.monitor is None:
            self._saved = state_dict  # until the number of classes is known
        else:
            self.monitor.load_state_dict(state_dict)
