"""How much memory this machine has."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")


def total_memory() -> int | None:
    """Bytes of the machine; None where the system is not a POSIX one that tells."""
    return _pages("SC_PHYS_PAGES")


def free_memory() -> int | None:
    """Bytes that can be had now; None where the system does not tell.

    On Linux with what the cache of files would give back, without which a machine that has read much looks full.
    """
    with suppress(OSError):
        found = re.search(r"^MemAvailable: +(\d+) kB$", _MEMINFO.read_text(encoding="ascii"), re.MULTILINE)
        if found is not None:
            return int(found[1]) << 10
    return _pages("SC_AVPHYS_PAGES")


def _pages(name: str) -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf(name)
    except (AttributeError, ValueError, OSError):
        return None
