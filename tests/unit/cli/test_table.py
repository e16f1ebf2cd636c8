import re

import click
import hypothesis
import pytest
from hypothesis import strategies as st
from rich.cells import cell_len

from clouduploader.cli import list as list_module
from clouduploader.cli import table
from clouduploader.cli.table import Column

AMI = "ami-0123456789abcdef0"
COLUMNS = (Column("job"), Column("user", least=8, rank=1), Column("details", least=16))


def fitted(columns, rows, width, *, is_ascii=False):
    return table.fitted(columns, rows, width=width, is_ascii=is_ascii, style=lambda _text, shown: shown)


@hypothesis.given(
    width=st.integers(40, 200),
    job=st.integers(1, 99999).map(str),
    user=st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=60),
    filename=st.text(st.characters(categories=["L", "N"]), max_size=200),
    details=st.sampled_from([AMI, f"{AMI} is there, but failed afterwards", f"Left behind: {AMI} in us-east-1", ""]),
)
def test_list_shows_ids_whole_at_every_width(width, job, user, filename, details):
    row = [job, "succeeded", "23h", user, "ec2", "home:tom:Branches:images", filename, details]
    header, rule, shown = fitted(list_module.TERMINAL_COLUMNS, [row], width)
    assert max(map(cell_len, (header, rule, shown))) <= width
    assert shown.split()[0] == job
    assert AMI in shown or not details.startswith(AMI)
    assert re.findall(r"ami-[0-9a-f]*", shown) in ([], [AMI])


@pytest.mark.parametrize(
    ("width", "titles"),
    [
        (200, ["job", "state", "age", "user", "target", "project", "filename", "details"]),
        (80, ["job", "state", "age", "user", "target", "filename", "details"]),
        (72, ["job", "state", "age", "user", "filename", "details"]),
        (60, ["job", "state", "filename", "details"]),
        (40, ["job", "state", "details"]),
    ],
)
def test_columns_go_in_the_order_of_their_ranks(width, titles):
    row = ["7", "succeeded", "2m", "tom_the_builder", "ec2", "home:tom:images", "my.x86_64-1.0.0-Build1.1.raw.xz", AMI]
    assert fitted(list_module.TERMINAL_COLUMNS, [row], width)[0].split() == titles


def test_table_is_as_wide_as_its_cells_where_there_is_room():
    assert fitted(COLUMNS, [["7", "tom", AMI]], 200) == [
        "job  user  details",
        "─" * 32,
        f"7    tom   {AMI}",
    ]


def test_cell_is_cut_between_words():
    shown = fitted(COLUMNS, [["7", "tom", "no subnet subnet-0123456789abcdef0 in us-east-1"]], 42)[-1]
    assert shown == "7    tom   no subnet…"


def test_cell_of_wide_characters_is_cut_by_what_it_takes_on_the_screen():
    header, _, shown = fitted(COLUMNS, [["7", "日本語の名前がここにある", "x" * 30]], 40)
    assert cell_len(shown) <= 40
    assert cell_len(shown[: shown.index("x")]) == header.index("details")


def test_column_that_must_stay_is_whole_even_where_nothing_fits():
    assert fitted((Column("id"),), [["temporary_ec2_uploadkey.ge6u4cls.key"]], 20)[-1].endswith(".ge6u4cls.key")


def test_terminal_without_unicode_gets_ascii():
    lines = fitted(COLUMNS, [["7", "tom", "d" * 60]], 40, is_ascii=True)
    assert "".join(lines).isascii()
    assert lines[-1].endswith("d...")


def test_piped_table_has_whole_cells_between_tabs(capsys):
    columns = [Column(title) for title in ("JOB", "USER", "DETAILS")]
    table.print_table(columns, [[7, "a\tb\x1b[31m\n", None], [8, "x" * 300, "y"]])
    assert capsys.readouterr().out == f"JOB\tUSER\tDETAILS\n7\ta\\tb\\x1b[31m\\n\t\n8\t{'x' * 300}\ty\n"


def test_piped_table_without_rows_is_its_header(capsys):
    table.print_table([Column("JOB"), Column("USER")], [])
    assert capsys.readouterr().out == "JOB\tUSER\n"


TABLE = """
from clouduploader.cli import table
from clouduploader.cli.table import Column
columns = (Column("JOB"), Column("STATE"), Column("DETAILS", least=8))
table.print_table(columns, [[7, "failed", "[/etc]" + "d" * 300], [123456, "succeeded", "\\x1b[31m"]])
"""


def test_table_on_a_terminal_fits_it(run_on_terminal):
    shown = run_on_terminal(TABLE, columns=60)
    lines = click.unstyle(shown).splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[-1].startswith("123456  succeeded  ")
    assert lines[-2].startswith("7       failed     [/etc]ddd")
    assert lines[-2].endswith("ddd\u2026")


def test_table_on_a_terminal_colours_states_and_keeps_escapes_out(run_on_terminal):
    shown = run_on_terminal(TABLE, NO_COLOR="")
    assert "\x1b[31mfailed   \x1b[0m  [/etc]" in shown
    assert "\x1b[32msucceeded\x1b[0m  \\x1b[31m" in shown


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"NO_COLOR": "", "TERM": "dumb"}])
def test_terminal_that_wants_no_colours_gets_none(run_on_terminal, environment):
    more = "output.print_fields([('state', 'failed')])"
    assert "\x1b" not in run_on_terminal(f"{TABLE}\n{more}", **environment)


def test_locale_without_unicode_gets_a_table_of_ascii(run_on_terminal):
    shown = run_on_terminal(TABLE, columns=60, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", NO_COLOR="1")
    assert shown.isascii()
    assert "\\u" not in shown


@pytest.mark.parametrize("thing", [AMI, "0190d4a2-5b6c-7d8e-9f01-23456789abcd"])
def test_id_of_any_cloud_is_not_cut(thing):
    assert fitted((Column("details", least=10),), [[f"{thing} and words behind it"]], 20)[-1].startswith(thing)
