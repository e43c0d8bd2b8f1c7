"""What a dataset is cut into to be counted."""

from __future__ import annotations

from typing import Protocol

from ..histogram import Histogram


class Spans(Protocol):
    """The pieces of a dataset, which together hold each cell once; any may be counted before any other."""

    def __len__(self) -> int: ...

    def count(self, number: int, histogram: Histogram) -> None:
        """Add the cells of a span; threads may call it at once, each with a histogram of its own.

        Raises OutsideLabelError as the histogram does, and DataError for bytes that cannot be read.
        """
