import io
import unicodedata

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.cli.text import age, cell, clean, is_encodable

HOSTILE = "[red]a\tb\x1b[31m\n[/etc]\u202e\udcff"
SHOWN = r"[red]a\tb\x1b[31m\n[/etc]\u202e\udcff"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("J\u00fcrgen O'Brien & \u65e5\u672c", "J\u00fcrgen O'Brien & \u65e5\u672c"),
        (HOSTILE, SHOWN),
        ("\x00\x7f\x9b", r"\x00\x7f\x9b"),
        ("\u2028", r"\u2028"),
    ],
)
def test_clean_escapes_what_a_terminal_would_obey(text, shown):
    assert clean(text) == shown


@hypothesis.given(st.text(st.characters(exclude_categories=())))
def test_clean_text_is_harmless_and_stable(text):
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    assert {unicodedata.category(char) for char in cleaned}.isdisjoint({"Cc", "Cf", "Cs", "Zl", "Zp"})
    cleaned.encode("utf-8")


@pytest.mark.parametrize(("value", "shown"), [(None, ""), ("a\nb", "a\\nb"), (7, "7")])
def test_cell_is_one_line(value, shown):
    assert cell(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-1, "0s"), (59.9, "59s"), (60, "1m"), (7199, "1h"), (86400, "1d"), (1e6, "1w"), (4e7, "1y")],
)
def test_age_is_in_the_largest_unit(seconds, shown):
    assert age(seconds) == shown


@pytest.mark.parametrize(("encoding", "is_there"), [("ascii", False), ("utf-8", True)])
def test_encodable_depends_on_the_stream(encoding, is_there):
    assert is_encodable("\u2026", io.TextIOWrapper(io.BytesIO(), encoding=encoding)) is is_there
