"""Tables and values as `runctl` shows them: as wide as the terminal, 80 columns where there is none."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

import typer

#: The colour of a state.
COLOURS = {
    "running": "green",
    "stopping": "yellow",
    "pending": "cyan",
    "succeeded": "blue",
    "stopped": "yellow",
    "interrupted": "magenta",
    "failed": "red",
    "lost": "red",
}
_GAP = 2
_LEAST = 6


def show_json(value: Any) -> None:
    """One line of JSON, for programs."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def coloured(text: str, colour: str | None) -> str:
    """Text in a colour, if standard output is a terminal and nobody asked for none."""
    if colour is None or not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return typer.style(text, fg=colour)


def show_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, shrink: Sequence[int] = (), spare: Sequence[int] = (),
    right: Sequence[int] = (), states: int | None = None,
) -> None:  # fmt: skip
    """Print rows in columns.

    Args:
        headings: of the columns; one that is empty in every row is left out.
        rows: their cells.
        shrink: columns that may be cut, in this order, when the table is wider than the terminal.
        spare: columns that are left out, in this order, when that is not enough.
        right: columns whose cells stand to the right.
        states: the column whose words have the colours of states.
    """
    kept = [column for column in range(len(headings)) if any(row[column] for row in rows)]
    filled = {column: max(_width(row[column]) for row in rows) for column in kept}
    widths = _fitted({column: _width(headings[column]) for column in kept}, filled, shrink, spare)
    lines = []
    for number, row in enumerate([headings, *rows]):
        cells = []
        for column, width in widths.items():
            text = _cut(row[column], width)
            blank = " " * (width - _width(text))
            padded = blank + text if column in right else text + blank
            colour = COLOURS.get(text.split()[0] if text else "") if column == states and number else None
            cells.append(coloured(padded, colour))
        lines.append((" " * _GAP).join(cells).rstrip() + "\n")
    sys.stdout.write("".join(lines))


def _fitted(
    headed: dict[int, int], filled: dict[int, int], shrink: Sequence[int], spare: Sequence[int]
) -> dict[int, int]:
    """The widths of columns on this terminal, of what their headings and their cells take."""
    room = shutil.get_terminal_size((80, 24)).columns
    for left_out in range(len(spare) + 1):
        widths = {column: max(headed[column], filled[column]) for column in headed if column not in spare[:left_out]}
        if _narrowed(widths, shrink, headed, room) <= 0:
            return widths
    for least in (filled, dict.fromkeys(widths, 0)):  # rather a heading is cut than what stands below it
        _narrowed(widths, shrink, least, room)
    return widths


def _narrowed(widths: dict[int, int], shrink: Sequence[int], least: dict[int, int], room: int) -> int:
    """Narrow columns until they fit; returns how much is missing."""
    over = sum(widths.values()) + _GAP * (len(widths) - 1) - room
    for column in shrink:
        if over > 0 and column in widths:
            cut = min(over, max(0, widths[column] - max(_LEAST, least[column])))
            widths[column] -= cut
            over -= cut
    return over


def _width(text: str) -> int:
    """How many columns of a terminal it takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _cut(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    from rich.cells import set_cell_size

    return set_cell_size(text, width - 1).rstrip() + "…"


def duration(seconds: float | None) -> str:
    """`45s`, `12m`, `3h05m`, `2d04h`; nothing for None."""
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}h{minutes:02}m" if hours < 48 else f"{hours // 24}d{hours % 24:02}h"


def ago(at: float | None, now: float | None = None) -> str:
    """`12m ago`; nothing for None."""
    return "" if at is None else f"{duration(max(0.0, (now or time.time()) - at))} ago"


def moment(at: float | None) -> str:
    """A time of this machine's clock, to the second; nothing for None."""
    return "" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def number(value: object) -> str:
    """A number in four digits; nothing for None."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def usd(value: float | None) -> str:
    """Dollars to the cent, and to the hundredth of a cent below ten cents; `?` for None."""
    return "?" if value is None else f"{value:.2f}" if value >= 0.1 or value == 0 else f"{value:.4f}"
