"""A count as a bar of text."""

from __future__ import annotations

from math import log1p

_EIGHTHS = " ▏▎▍▌▋▊▉"


def log_bar(count: int, largest: int, width: int, only_ascii: bool = False) -> str:
    """A bar as long as log(1 + count), `width` columns for the largest count; only a count of 0 has none.

    On a linear scale every class but the background would be the same stub.
    """
    if count <= 0:
        return ""
    length = width * log1p(count) / log1p(largest)
    if only_ascii:
        return "#" * max(1, round(length))
    whole, eighths = divmod(max(1, round(8 * length)), 8)
    return ("█" * whole + _EIGHTHS[eighths]).rstrip()
