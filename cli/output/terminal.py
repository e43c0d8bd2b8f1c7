"""Results on stdout, progress and notes on stderr."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from vaefit.cache.errors import printable

from ..torchrun import prints
from .progress import ProgressLine
from .streams import print_json, print_text, silence_stdout

_UNLIMITED = 10_000
PIPE_WIDTH = 120
"""Width of a table, in columns, that goes into a file or a pipe."""


def new_table(
    title: str | None,
    *,
    left: Sequence[str] = (),
    right: Sequence[str] = (),
    last: Sequence[str] = (),
    no_wrap: bool = False,
    **settings: Any,
) -> Table:
    """Return an empty table: columns aligned to the left, then to the right, and `last` to the left again."""
    columns = [Column(name, no_wrap=no_wrap) for name in left]
    columns += [Column(name, justify="right", no_wrap=no_wrap) for name in right]
    columns += [Column(name, no_wrap=no_wrap) for name in last]
    return Table(*columns, title=title, **settings)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Print no more and let the run finish: a reader such as `head` takes only the first lines."""
        self.quiet = True
        silence_stdout()

    def render_str(self, text: str, **settings: Any) -> Text:
        """Escape control characters: a text may hold a file name, and a file name may hold any character."""
        return super().render_str("\n".join(map(printable, text.split("\n"))), **settings)


class Terminal:
    """Output of one command, by its `--json`, `--csv` and `--quiet`; only rank 0 of a job prints results."""

    def __init__(self, as_json: bool = False, quiet: bool = False, as_csv: bool = False) -> None:
        self._silent, self._asked_quiet = not prints(), quiet
        self.as_json, self.quiet, self.as_csv = as_json, quiet or self._silent, as_csv
        # for NO_COLOR alone rich would keep bold
        self._colours: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
        width = None if sys.stdout.isatty() else PIPE_WIDTH
        self.out = _Console(color_system=self._colours, highlight=False, markup=False, width=width)
        self.err = _Console(color_system=self._colours, stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._progress = ProgressLine(None)
        logger = logging.getLogger("vaefit")
        for old in [h for h in logger.handlers if isinstance(h, _Notes)]:
            logger.removeHandler(old)
        logger.addHandler(_Notes(self))
        logger.propagate = False

    def line(self, text: str = "", style: str | None = None) -> None:
        """Print one line of results, except with `--json` and `--csv`."""
        if not (self.as_json or self.as_csv or self._silent):
            self._progress.close()
            self.out.print(printable(text), style=style, markup=False, soft_wrap=True)

    def table(self, table: Table) -> None:
        """Print a table of results, except with `--json` and `--csv`."""
        if not (self.as_json or self.as_csv or self._silent):
            self._progress.close()
            table.box, table.show_edge, table.title_justify, table.title_style = SIMPLE_HEAD, False, "left", "bold"
            # a table may be wider than the terminal; its digits are never cut off
            room = self.out.options.update(max_width=_UNLIMITED)
            out = self.out
            least = Measurement.get(out, room, table).minimum + len(table.columns)  # without the separators
            if least > out.width:
                out = _Console(color_system=self._colours, highlight=False, markup=False, width=least)
            out.print(table)
            self.out.print()

    def json(self, content: dict[str, Any] | list[dict[str, Any]]) -> None:
        """Print the JSON object or the list of rows, with `--json` only."""
        if self.as_json and not self._silent:
            print_json(content)

    def csv(self, lines: Iterable[str]) -> None:
        """Print the lines of a CSV file, with `--csv` only."""
        if self.as_csv and not self._silent:
            print_text("\n".join(lines))

    def note(self, text: str, every_rank: bool = False) -> None:
        """Print a note on stderr, except with `--quiet`; of the ranks of a job rank 0 does, unless `every_rank`."""
        if not (self._asked_quiet if every_rank else self.quiet):
            self.err.print(printable(f"note: {text}"), markup=False)

    @contextmanager
    def progress(self) -> Iterator[ProgressLine]:
        """Context manager: the progress line, empty with `--quiet` or if stderr is not a terminal.

        With `--json`, what the user's own model prints goes to stderr meanwhile.
        """
        self._progress = ProgressLine(None if self.quiet or not self.err.is_terminal else self.err)
        try:
            with redirect_stdout(sys.stderr) if self.as_json else nullcontext():
                yield self._progress
        finally:
            self._progress.close()


class _Notes(logging.Handler):
    """Log handler that prints each warning of the library once, as a note, and with `--verbose` everything."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self._said:
            self._said.add(text)
            self._terminal.note(text, getattr(record, "every_rank", False))
