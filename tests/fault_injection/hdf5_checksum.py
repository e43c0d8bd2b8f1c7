"""The checksums that newer HDF5 structures carry: found in a whole file, and made to fit again after damage.

Without this, nearly all damage to such a structure is seen at once, and nothing behind the check is tried.
"""

from __future__ import annotations

SIGNATURES = (b"OHDR", b"OCHK", b"FAHD", b"FADB", b"EAHD", b"EAIB", b"EASB", b"EADB", b"BTHD", b"BTIN", b"BTLF",
              b"FRHP", b"FHDB", b"FHIB", b"\x89HDF\r\n\x1a\n")  # fmt: skip
LONGEST = 2048
"""Longer structures, such as unpaged blocks of many chunks, are not sought: they would take seconds."""
_MASK = 0xFFFFFFFF


def sealed(data: bytes) -> list[tuple[int, int]]:
    """(start, end) of each structure whose checksum stands in the four bytes at `end`."""
    found: list[tuple[int, int]] = []
    for signature in SIGNATURES:
        at = data.find(signature)
        while at >= 0:
            end = _end(data, at, len(signature))
            if end is not None:
                found.append((at, end))
            at = data.find(signature, at + 1)
    return sorted(found)


def reseal(data: bytearray, start: int, end: int) -> None:
    """Put the checksum of what lies between `start` and `end` behind it."""
    data[end : end + 4] = lookup3(bytes(data[start:end])).to_bytes(4, "little")


def _end(data: bytes, start: int, least: int) -> int | None:
    for end in range(start + least, min(start + LONGEST, len(data) - 4)):
        stored = data[end : end + 4]
        if stored != b"\0\0\0\0" and lookup3(data[start:end]) == int.from_bytes(stored, "little"):
            return end
    return None


def lookup3(key: bytes) -> int:
    """Bob Jenkins' hashlittle of 2006 with an initial value of 0, as HDF5 computes it over its metadata."""
    a = b = c = (0xDEADBEEF + len(key)) & _MASK
    at, left = 0, len(key)
    if not left:
        return c
    padded = key + bytes(12)
    while True:
        a = (a + int.from_bytes(padded[at : at + 4], "little")) & _MASK
        b = (b + int.from_bytes(padded[at + 4 : at + 8], "little")) & _MASK
        c = (c + int.from_bytes(padded[at + 8 : at + 12], "little")) & _MASK
        if left <= 12:
            return _final(a, b, c)
        a, b, c = _mix(a, b, c)
        at, left = at + 12, left - 12


def _turn(x: int, k: int) -> int:
    return (x << k | x >> 32 - k) & _MASK


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for k in (4, 6, 8, 16, 19, 4):
        a, c = (a - c & _MASK) ^ _turn(c, k), c + b & _MASK
        a, b, c = b, c, a
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    for k in (14, 11, 25, 16, 4, 14, 24):
        c = (c ^ b) - _turn(b, k) & _MASK
        a, b, c = b, c, a
    return b
