"""Pieces of reStructuredText."""

import re
from collections.abc import Iterable, Sequence

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def inline(text: str) -> str:
    """Return text of the program as reStructuredText on one line: `code` and options as code, all else as it is."""
    parts = " ".join(text.split()).split("`")
    return "".join(code(part) if index % 2 else _prose(part) for index, part in enumerate(parts))


def _prose(text: str) -> str:
    return OPTION.sub(lambda found: code(found[0]), re.sub(r"([\\*_|<@])", r"\\\1", text))


def code(text: str) -> str:
    """Return text in the font of code; it may stand next to a letter."""
    return f"\\ ``{text}``\\ "


def block(text: str, language: str = "text") -> list[str]:
    """Return lines that are shown as they are."""
    return [f".. code-block:: {language}", "", *indented(text.splitlines()), ""]


def section(title: str, underline: str = "-") -> list[str]:
    """Return a heading."""
    return [title, underline * len(title), ""]


def indented(lines: Iterable[str]) -> list[str]:
    """Return lines as the content of what stands above them."""
    return [f"   {line}" if line else "" for line in lines]


def table(head: Sequence[str], rows: Iterable[Sequence[str]], widths: Sequence[int]) -> list[str]:
    """Return a table of cells that are reStructuredText, each on one line."""
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {' '.join(map(str, widths))}", ""]
    for row in (head, *rows):
        first, *others = row
        lines += [f"   * - {first}", *(f"     - {cell}" for cell in others)]
    return [*lines, ""]
