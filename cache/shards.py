"""Files of one dataset: one file, several, or all that match a pattern; checks that they belong together."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .errors import DataError, path_errors
from .location import Location

Data = str | Path | Location | Sequence[str | Path | Location]
"""`file.h5`, `file.h5:/dataset`, a pattern such as `shards/**/train-*.h5:/grids`, or several of these."""

Shape = tuple[int, int, int]
"""(N, H, W)"""

_MAGIC = re.compile(r"[*?[]")
_CACHED = ".vaefit.json"
_FEW = 3
"""Most shards that are named one by one."""


def find_shards(data: Data) -> tuple[Location, ...]:
    """Return the shards that `data` names, in natural order of their absolute paths: `train-2.h5` before `train-10.h5`.

    Indices of grids follow this order, so it is the same whether the shell expanded a pattern or this function did.
    In a pattern `*`, `?`, `[...]` and `**` (any folders, links not followed) mean the same as in a shell; hidden
    names, folders and cached files never match. Where a file has the pattern itself as its name, that file is meant. A
    Location is never a pattern.

    Raises DataError where a pattern matches no file, and where a file is named twice, by whatever path or link.
    """
    named = data_names(data)
    if not named:
        raise DataError("no dataset is named", do="Pass file.h5, file.h5:/dataset or a pattern such as 'train-*.h5'.")
    shards = sorted((shard for one in named for shard in _expand(one)), key=_natural)
    refuse_twice([(shard, shard.dataset) for shard in shards])
    return tuple(shards)


def data_names(data: Data) -> list[str | Path | Location]:
    """Return the names in `data`; what is no sequence of names is one, wrong or right."""
    return list(data) if isinstance(data, Sequence) and not isinstance(data, (str, bytes)) else [data]


def refuse_twice(shards: Sequence[tuple[Location, str | None]]) -> None:
    """Raise DataError where one dataset of one file is named twice: its cells would count twice."""
    seen: dict[tuple[tuple[int, int], str | None], Location] = {}
    for shard, dataset in shards:
        if not shard.exists():
            continue  # opening it says what is wrong
        with path_errors(shard.file):
            stat = shard.file.stat()
        first = seen.setdefault(((stat.st_dev, stat.st_ino), dataset), shard)
        if first is not shard:
            what = "this dataset is named twice, so its cells would count twice"
            do = "Name it once; a pattern must not match a link to another of its files."
            raise DataError(what, str(shard), f"also named {first}", do)


def agree(shards: Iterable[tuple[Location, Shape]]) -> None:
    """Raise DataError for the first shard whose grids have another size than those of shard 0."""
    (first, expected), *others = shards
    for shard, shape in others:
        if shape[1:] != expected[1:]:
            got = f"shape {shape}, where {first} has {expected}"
            do = "Leave it out, or count it by itself."
            raise DataError("the shards of one dataset hold grids of one size", str(shard), got, do)


def describe(shards: Sequence[Location | Path]) -> str:
    """Return the names of up to three shards, else of the first and the last."""
    if len(shards) <= _FEW:
        return ", ".join(map(str, shards))
    return f"{shards[0]} to {shards[-1]}"


def _expand(one: str | Path | Location) -> list[Location]:
    location = Location.parse(one)
    parts = location.file.parts
    first = next((place for place, part in enumerate(parts) if _MAGIC.search(part)), None)
    if isinstance(one, Location) or first is None or location.exists():
        return [location]
    folder = Path(*parts[:first])
    pattern = [*parts[first:], *(["*"] if parts[-1] == "**" else [])]
    try:
        with path_errors(location):
            found = [file for file in folder.glob("/".join(pattern)) if _may_match(file, len(folder.parts))]
            place = location.absolute.parents[len(parts) - first - 1]
            gone = "" if found else f"no match in {place}" if place.is_dir() else f"no folder {place}"
    except DataError:
        raise
    except ValueError as error:  # `**` beside other letters, before Python 3.13
        do = "Use ** for any folders, as in shards/**/*.h5, and * inside a name."
        raise DataError("this is no pattern", str(location), str(error), do) from error
    if not found:
        do = "Check the folder and the pattern."
        raise DataError("no file matches the pattern", str(location), got=gone, do=do)
    return [Location(file, location.dataset) for file in found]


def _may_match(file: Path, fixed: int) -> bool:
    hidden = any(part.startswith(".") for part in file.parts[fixed:])
    return not hidden and not file.name.endswith(_CACHED) and file.is_file()


def _natural(shard: Location) -> tuple[list[list[str | int]], str, str]:
    """Return the sort key: numbers in names compare as numbers; `1.h5` and `01.h5`, equal then, compare as text."""
    file = Path(os.path.normpath(shard.absolute))
    return [list(_alternating(part)) for part in file.parts], str(file), shard.dataset or ""


def _alternating(part: str) -> Iterator[str | int]:
    for place, piece in enumerate(re.split("([0-9]+)", part)):
        yield int(piece) if place % 2 else piece
