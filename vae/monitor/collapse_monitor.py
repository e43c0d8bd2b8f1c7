"""Monitor of a training loop: classes that die or are never learned, output collapse, losses that are not finite."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaefit.cache.errors import SettingError, require, require_range
from vaefit.cache.scan.histogram import MAX_CLASSES

from ..metrics.accuracy import Labels
from .class_recall import ClassRecall, ClassRows
from .output_collapse import OutputCollapse
from .warnings import NonFiniteLoss, TrainingWarning

_log = logging.getLogger("vaefit")

MOST_GRIDS = 32
"""Most grids of a batch that are checked."""
LEAST_GRIDS, MOST_CELLS = 8, 1 << 17
"""Fewer large grids are checked, down to 8, because every pair of grids is compared."""
MOST_STEPS = 1 << 20
_OF_CLASSES = ("dead", "shortest", "missing", "last_alive", "missed")


class CollapseMonitor:
    """Monitor of the steps of a training loop, which warns of failures that an average over all cells hides.

        monitor = CollapseMonitor(num_classes=10)
        for grids in batches:
            logits, mu, logvar = model(grids)
            loss, counts = focal_loss_with_counts(logits, grids, weight)
            ...
            monitor.update(counts, logits, grids, loss=loss)

    Counts and losses stay on their device. A check at every `every`-th step reads them, since a read waits for the
    device. It warns, through the logger `vaefit`, of

    - a class that died: it was predicted steadily over 4 windows or more, and then nearly never. With `every` and
      `window` at 10 the warning comes within 20 steps of the death, if a window holds a hundred cells of the class and
      enough independent cells to exclude chance. Otherwise, and for a class that faded slowly or came and went before,
      spans of up to 8 windows are judged. With small batches a class may go away for a while; this is a warning too.
    - a class that is not learned: nearly none of its cells in the last `patience` steps (at least 1,000) is right.
    - collapse in two consecutive checks: the batch has a skill of at most 0.05 and a variation of at most
      0.1, on at most 32 of its grids; or one class covers 99 % of the predictions since the last check, but
      not of the targets, which hold a hundred or more cells of other classes. The warning comes from step `warmup` on,
      because most runs begin with a plateau of equal outputs for all grids.
    - a loss that is not finite.

    Each warning comes once, and again only after the failure was over in between. With several ranks, the counts of a
    rank are those of its own grids: add them first (`torch.distributed.all_reduce`), or monitor one rank.

    Args:
        num_classes: C.
        every: steps between two checks.
        window: steps of the shortest span on which a class is judged.
        patience: steps without a class before it counts as not learned.
        warmup: steps before the first warning of a collapse.
        ignore_index: label of cells that are not counted; the counts leave them out already.
        on_warning: called with each warning, instead of the logger.

    Raises SettingError for a number out of range.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        every: int = 10,
        window: int = 10,
        patience: int = 500,
        warmup: int = 500,
        ignore_index: int | None = None,
        on_warning: Callable[[TrainingWarning], None] | None = None,
    ) -> None:
        require_range("num_classes", num_classes, 2, MAX_CLASSES)
        require_range("every", every, 1, MOST_STEPS)
        require_range("window", window, 1, MOST_STEPS)
        require_range("patience", patience, 1, MOST_STEPS)
        require_range("warmup", warmup, 0, MOST_STEPS)
        self.num_classes, self.every, self.step = num_classes, every, 0
        self._on_warning = on_warning
        self._classes = ClassRecall(num_classes, window, patience)
        self._collapse = OutputCollapse(num_classes, warmup, ignore_index)
        self._not_finite = False
        # of the steps since the last check, on the device of the counts
        self._counts = torch.zeros(every, num_classes, num_classes, dtype=torch.int64, device="cpu")
        self._losses = torch.zeros(every, dtype=torch.float64, device="cpu")

    @torch.no_grad()
    def update(
        self,
        counts: Tensor,
        output: Tensor | None = None,
        targets: Tensor | None = None,
        *,
        loss: Tensor | float | None = None,
    ) -> tuple[TrainingWarning, ...]:
        """Add one step, and return the new warnings; waits for the device only at a check.

        Args:
            counts: (C, C) confusion counts of the step, row = target, as `focal_loss_with_counts` gives them.
            output: the step's logits (B, C, H, W) in any float type, or predictions (B, H, W) in any integer type; left
                out, collapse is detected from the counts alone.
            targets: (B, H, W) labels, required with `output` and only then.
            loss: the step's loss, one number.

        Raises SettingError where shapes do not fit.
        """
        if tuple(counts.shape) != (self.num_classes, self.num_classes):
            do = f"Pass confusion counts ({self.num_classes}, {self.num_classes})."
            raise SettingError("the counts do not fit the classes", "counts", f"shape {tuple(counts.shape)}", do)
        if output is not None or targets is not None:
            self._check_shapes(output, targets)
        place = self.step % self.every
        self._counts = self._counts.to(counts.device)
        self._counts[place].copy_(counts)  # a CUDA graph overwrites them at the next step
        if loss is not None:
            if isinstance(loss, Tensor):
                require(loss.numel() == 1, "loss", f"shape {tuple(loss.shape)}", "one number")
                loss = loss.reshape(())
            self._losses = self._losses.to(counts.device)
            self._losses[place] = loss
        self.step += 1
        if place + 1 < self.every:
            return ()
        found = self._check(output, targets)
        for warning in found:
            if self._on_warning is None:
                _log.warning(str(warning))
            else:
                self._on_warning(warning)
        return found

    def _check_shapes(self, output: Tensor | None, targets: Tensor | None) -> None:
        """Raise SettingError unless the shapes are those of logits or predictions and their targets."""
        shape = None if output is None else tuple(output.shape)
        expected = None if targets is None else tuple(targets.shape)
        if shape is not None and expected is not None and len(expected) == 3:
            batch, height, width = expected
            floats = output is not None and output.is_floating_point()
            if shape == ((batch, self.num_classes, height, width) if floats else expected):
                return
        raise SettingError(
            "the output and the targets do not fit together",
            "update",
            f"output {shape}, targets {expected}",
            f"Pass logits (B, {self.num_classes}, H, W) or integer predictions (B, H, W), with targets (B, H, W).",
        )

    def _check(self, output: Tensor | None, targets: Tensor | None) -> tuple[TrainingWarning, ...]:
        rows = ClassRows(*_sums(self._counts).cpu().numpy())
        batch = None if output is None or targets is None else _sample(output, targets)
        classes, collapse = self._classes.check(self.step, rows), self._collapse.check(self.step, rows, batch)
        return (*self._check_losses(), *classes, *collapse)

    def _check_losses(self) -> list[TrainingWarning]:
        """Return the warning of a loss that is not finite, unless the last check found one too."""
        losses = self._losses.tolist()
        self._losses.zero_()
        bad = [place for place, loss in enumerate(losses) if not math.isfinite(loss)]
        before, self._not_finite = self._not_finite, bool(bad)
        if before or not bad:
            return []
        return [NonFiniteLoss(self.step, None, losses[bad[0]], self.step - self.every + bad[0] + 1)]

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the monitor as numbers and CPU tensors; waits for the device."""
        return {
            "num_classes": self.num_classes,
            "every": self.every,
            "step": self.step,
            "counts": self._counts.cpu().clone(),
            "losses": self._losses.cpu().clone(),
            "not_finite": self._not_finite,
            "blind": self._collapse.collapsed_checks,
            "collapsed": self._collapse.collapsed,
            "rows": torch.from_numpy(np.array(self._classes.rows)),
            **{name: torch.from_numpy(getattr(self._classes, name).copy()) for name in _OF_CLASSES},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state of `state_dict`; the following warnings are those of an uninterrupted run.

        Raises SettingError where `num_classes` or `every` differs from the saved one.
        """
        for name in ("num_classes", "every"):
            wanted = f"{state[name]}, as in the run that is resumed"
            require(getattr(self, name) == state[name], name, getattr(self, name), wanted)
        classes, collapse = self._classes, self._collapse
        self.step, self._not_finite = state["step"], state["not_finite"]
        collapse.collapsed_checks, collapse.collapsed = state["blind"], state["collapsed"]
        classes.rows = ClassRows(*state["rows"].cpu().numpy().copy())
        for name in _OF_CLASSES:
            setattr(classes, name, state[name].cpu().numpy().copy())
        self._counts, self._losses = state["counts"].clone(), state["losses"].clone()


def _sums(counts: Tensor) -> Tensor:
    """Return the parts of ClassRows (4, T, C) of counts (T, C, C), on their device to copy less from there."""
    held, right, predicted = counts.sum(2), counts.diagonal(dim1=1, dim2=2), counts.sum(1)
    most = held.sum(0).argmax()
    wrong = predicted - right
    of_most = counts.index_select(1, most.reshape(1)).squeeze(1)
    is_most = torch.arange(held.shape[1], device=counts.device) == most
    return torch.stack([held, right, predicted, torch.where(is_most, wrong, wrong - of_most)])


def _sample(output: Tensor, targets: Tensor) -> tuple[Labels, Labels]:
    """Return predictions and targets (b, H, W) int64 of b grids evenly spread over the batch; waits for the device."""
    batch, height, width = targets.shape
    most = min(MOST_GRIDS, max(LEAST_GRIDS, MOST_CELLS // (height * width)))
    some = slice(None, None, -(-batch // most))
    predictions = output[some].argmax(dim=1) if output.is_floating_point() else output[some]
    return predictions.to("cpu", torch.int64).numpy(), targets[some].to("cpu", torch.int64).numpy()
