"""Tables: fitted to a terminal by dropping columns and cutting cells, but never an id.

rich, which knows how wide characters are, is loaded only there.
"""

import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence

import click

from clouduploader.cli import output
from clouduploader.cli.text import cell, is_encodable
from clouduploader.util.frozen import frozen

GAP = 2  # blanks between columns
_ID = re.compile(r"(?:[a-z]+(?:-[a-z]+)*-[0-9a-f]{8,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?!\S)")
"""An id of a cloud: words and a hexadecimal number, such as `image-0123456789abcdef0`, or a UUID (RFC 9562)."""


@frozen()
class Column:
    """A column of a table.

    Attributes:
        title: Its header.
        least: To how many characters its cells may be cut on a terminal; None for not at all. A cell that begins with
            the id of a thing in the cloud is cut behind that id at most.
        rank: Of the columns that a terminal has no room for the one with the highest rank goes first; one with 0 stays.
    """

    title: str
    least: int | None = None
    rank: int = 0


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> None:
    """Print rows: fitted to the terminal, or as they come, with tabs between whole cells and a header line."""
    if not sys.stdout.isatty():
        sys.stdout.write("\t".join(column.title for column in columns) + "\n")
        sys.stdout.writelines("\t".join(map(cell, row)) + "\n" for row in rows)
        sys.stdout.flush()
        return
    lines = [[cell(value) for value in row] for row in rows]
    width = shutil.get_terminal_size().columns
    is_ascii = not is_encodable("\u2500\u2026", sys.stdout)
    click.echo("\n".join(fitted(columns, lines, width=width, is_ascii=is_ascii, style=output.state)))


def fitted(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    width: int,
    is_ascii: bool,
    style: Callable[[str, str], str],
) -> list[str]:
    """Make the lines of a table, its header with a rule below first.

    Args:
        columns: See Column.
        rows: A cell for each column; printable.
        width: Of the terminal, in characters. Lines are longer only if what must stay is.
        is_ascii: Whether the terminal shows ASCII only.
        style: Colours a cell: given the cell, and the same with the blanks that fill its column.
    """
    from rich.cells import cell_len, set_cell_size

    cells = [[column.title for column in columns], *rows]
    natural = [max(cell_len(row[place]) for row in cells) for place in range(len(columns))]
    least = [
        natural[place] if column.least is None else min(natural[place], _least(column, [row[place] for row in cells]))
        for place, column in enumerate(columns)
    ]
    shown = _shown(columns, least, width)
    widths = _widths({place: natural[place] for place in shown}, {place: least[place] for place in shown}, width)
    mark, rule = ("...", "-") if is_ascii else ("\u2026", "\u2500")
    lines = []
    for row in cells:
        cut = {place: _cut(row[place], widths[place], mark) for place in shown}
        parts = [style(text, set_cell_size(text, widths[place])) for place, text in cut.items()]
        lines.append((" " * GAP).join(parts).rstrip())
    lines.insert(1, rule * _total(widths.values()))
    return lines


def _least(column: Column, cells: Sequence[str]) -> int:
    """Return how narrow a column can be made: as narrow as it may, but not in the middle of an id."""
    from rich.cells import cell_len

    ids = [found.end() + 1 for text in cells if (found := _ID.match(text))]  # 1 for the mark that more follows
    return max([column.least or 0, cell_len(column.title), *ids])


def _shown(columns: Sequence[Column], least: Sequence[int], width: int) -> list[int]:
    """Return the places of the columns that there is room for."""
    shown = list(range(len(columns)))
    while _total(least[place] for place in shown) > width:
        last = max(shown, key=lambda place: columns[place].rank)
        if not columns[last].rank:
            break
        shown.remove(last)
    return shown


def _widths(natural: dict[int, int], least: dict[int, int], width: int) -> dict[int, int]:
    """Return the width of each column: what is too much is taken from the widest that can give some."""
    widths = dict(natural)
    while _total(widths.values()) > width:
        places = [place for place in widths if widths[place] > least[place]]
        if not places:
            break
        widths[max(places, key=widths.__getitem__)] -= 1
    return widths


def _total(widths: Iterable[int]) -> int:
    numbers = list(widths)
    return sum(numbers) + GAP * (len(numbers) - 1)


def _cut(text: str, width: int, mark: str) -> str:
    """Return a text of at most this width: cut between two words, or in the first one if that is too long."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return text
    front = set_cell_size(text, width - len(mark))
    if " " in text[len(front.rstrip()) :][:1]:
        return front.rstrip() + mark
    head, _, _ = front.rpartition(" ")
    return (head.rstrip() or front) + mark
