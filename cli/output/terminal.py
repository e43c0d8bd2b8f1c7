"""Results on stdout, progress and notes on stderr."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from vaefit.cache.errors import printable

from ..torchrun import prints
from .progress import ProgressLine
from .streams import print_json, print_text, silence_stdout

_ENDLESS = 10_000
PIPE_WIDTH = 120
"""Columns of a table that goes into a file or a pipe, which has no width of its own."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Go on in silence: whoever reads only the first lines still wants the run."""
        self.quiet = True
        silence_stdout()

    def render_str(self, text: str, **settings: Any) -> Text:
        """Escape what would steer the terminal: a text may hold names, and a file may have any name."""
        return super().render_str("\n".join(map(printable, text.split("\n"))), **settings)


class Terminal:
    """What one command prints, by its `--json`, `--csv` and `--quiet`; of the processes of a job, one prints."""

    def __init__(self, as_json: bool = False, quiet: bool = False, as_csv: bool = False) -> None:
        self._silent = not prints()
        self.as_json, self.quiet, self.as_csv = as_json, quiet or self._silent, as_csv
        # rich would drop the colours only, and keep bold
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
        """Print one line of results, unless they go to a program."""
        if not (self.as_json or self.as_csv or self._silent):
            self._progress.close()
            self.out.print(printable(text), style=style, markup=False, soft_wrap=True)

    def table(self, table: Table) -> None:
        """Print a table of results, unless they go to a program."""
        if not (self.as_json or self.as_csv or self._silent):
            self._progress.close()
            table.box, table.show_edge, table.title_justify, table.title_style = SIMPLE_HEAD, False, "left", "bold"
            # wider than the terminal rather than with digits left out
            room = self.out.options.update(max_width=_ENDLESS)
            out = self.out
            least = Measurement.get(out, room, table).minimum + len(table.columns)  # it counts no separators
            if least > out.width:
                out = _Console(color_system=self._colours, highlight=False, markup=False, width=least)
            out.print(table)
            self.out.print()

    def json(self, content: dict[str, Any] | list[dict[str, Any]]) -> None:
        """Print the one JSON object, or the list of rows, if it was asked for."""
        if self.as_json and not self._silent:
            print_json(content)

    def csv(self, lines: Iterable[str]) -> None:
        """Print the lines of a CSV file, if it was asked for."""
        if self.as_csv and not self._silent:
            print_text("\n".join(lines))

    def note(self, text: str) -> None:
        """Tell the user something that is not a result."""
        if not self.quiet:
            self.err.print(printable(f"note: {text}"), markup=False)

    @contextmanager
    def progress(self) -> Iterator[ProgressLine]:
        """Give the line that shows progress; nothing is shown with `--quiet`, nor where stderr is not a terminal."""
        self._progress = ProgressLine(None if self.quiet or not self.err.is_terminal else self.err)
        try:
            yield self._progress
        finally:
            self._progress.close()


class _Notes(logging.Handler):
    """Warnings of the library as notes, each once."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(logging.WARNING)
        self._terminal = terminal
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self._said:
            self._said.add(text)
            self._terminal.note(text)
