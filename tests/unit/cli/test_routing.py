import os

import click
import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.cli import parsing, program, routing
from clouduploader.cli.session import Session
from clouduploader.errors import UsageError

FILES = ["/srv/obs/cloudupload/7.file", "/srv/obs/cloudupload/7.data"]
LOG = ["/srv/obs/cloudupload/7.log"]
NAME_AND_RESULT = ["a.raw.xz", "/srv/obs/cloudupload/7.result"]


@pytest.mark.parametrize(
    ("options", "operands"),
    [
        ([], ["joe", "ec2", *FILES, *LOG]),
        ([], ["joe", "ec2", *FILES, "a.raw.xz"]),
        ([], ["joe", "ec2", *FILES, *NAME_AND_RESULT]),
        ([], ["list", "ec2", *FILES, *LOG]),
        ([], ["upload", "ec2", *FILES, *NAME_AND_RESULT]),
        ([], ["-king", "ec2", *FILES, *LOG]),
        ([], ["-v", "ec2", *FILES, *LOG]),
        ([], ["-v", "ec2", *FILES, *NAME_AND_RESULT]),
        ([], ["--help", "ec2", *FILES, *LOG]),
        ([], ["--home", "ec2", *FILES, *NAME_AND_RESULT]),
        ([], ["--home=/x", "ec2", *FILES, *LOG]),
        ([], ["--", "ec2", *FILES, *LOG]),
        ([], ["--json", "ec2", *FILES, *LOG]),
        ([], ["o'brien & sons", "ec2", *FILES, *LOG]),
        ([], ["J\u00fcrgen", "ec2", *FILES, *NAME_AND_RESULT]),
        ([], [os.fsdecode(b"\xff\xfe"), "ec2", *FILES, *LOG]),
        ([], ["", "", *FILES, *LOG]),
        ([], ["joe", "ec2", *FILES, "--verbose", "/r"]),
        (["-v"], ["joe", "ec2", *FILES, *LOG]),
        (["-v"], ["joe", "ec2", *FILES, *NAME_AND_RESULT]),
        (["-v"], ["-v", "ec2", *FILES, *LOG]),
        (["-v"], ["-q", "ec2", *FILES, *NAME_AND_RESULT]),
        (["--verbose", "--home", "/etc/x"], ["list", "ec2", *FILES, *LOG]),
        (["--home=/etc/x", "--spool", "/srv/x", "-q"], ["--spool", "ec2", *FILES, *NAME_AND_RESULT]),
    ],
)
def test_obs_call_is_found(options, operands):
    assert routing.obs_call_start([*options, *operands]) == len(options)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["list"],
        ["--help"],
        ["-v", "list", "--json"],
        ["inspect", "7"],
        ["joe", "ec2", *FILES],
        ["joe", "ec2", *FILES, *NAME_AND_RESULT, "more"],
        ["joe", "ec2", "7.file", FILES[1], *LOG],
        ["joe", "ec2", FILES[0], "7.data", *LOG],
        ["upload", "--data", *FILES, "a.raw.xz"],
        ["upload", "--data", "/d", "--events", "/e", "a.raw.xz"],
        ["--spool", "/s", "--home", "/h", "list"],
        ["--home", "/h", "kill", "/1", "/2"],
        ["kill", "1", "2", "3", "4", "5"],
        ["sandbox", "--", "sh", "-c", "/bin/true"],
    ],
)
def test_other_command_line_is_none(arguments):
    assert routing.obs_call_start(arguments) is None


ARGUMENT = st.binary(max_size=30).filter(lambda value: b"\0" not in value).map(os.fsdecode)
OPTION_LIKE = st.sampled_from(["-v", "-q", "--home", "--spool=/x", "--json", "--", "-", *program.COMMANDS])
ANY = st.one_of(ARGUMENT, st.text(st.characters(exclude_characters="\0"), max_size=30), OPTION_LIKE)
PATH = ANY.map(lambda value: "/" + value)
TARGET = ANY.filter(lambda value: not value.startswith(("-", "/")))
OPTIONS = st.lists(
    st.sampled_from([["-v"], ["--quiet"], ["--home", "/h"], ["--spool", "s"], ["--home=/h"]]), max_size=3
).map(lambda groups: [word for group in groups for word in group])


@hypothesis.given(OPTIONS, ANY, TARGET, PATH, PATH, st.lists(ANY, min_size=1, max_size=2))
def test_obs_call_is_found_with_any_value(options, user, target, upload_file, targetdata, rest):
    operands = [user, target, upload_file, targetdata, *rest]
    assert routing.obs_call_start([*options, *operands]) == len(options)


@hypothesis.given(st.lists(ANY, max_size=9))
def test_operands_are_five_or_six(arguments):
    start = routing.obs_call_start(arguments)
    assert start is None or len(arguments) - start in routing.OPERAND_COUNTS


def session_of_click(words):
    """What Click makes of the options before a command."""
    session = Session()
    program.clouduploader_command.make_context("clouduploader", [*words, "list"], obj=session)
    return session


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["-v"],
        ["--verbose", "--quiet"],
        ["-q", "--home", "/h", "--home=/i"],
        ["--spool=", "--home", "-v"],
        ["--spool", "a=b", "--home==c"],
        ["--home", "\udcff"],
    ],
)
def test_options_are_read_as_click_reads_them(words):
    session = Session()
    routing.set_options(session, words)
    assert vars(session) == vars(session_of_click(words))


@pytest.mark.parametrize("name", ["--home", "--spool"])
@pytest.mark.parametrize("kind", ["file", "not readable"])
def test_directory_that_is_none_is_the_error_of_click(name, kind, tmp_path, monkeypatch):
    path = tmp_path / "o'brien"
    if kind == "file":
        path.touch()
    else:
        path.mkdir()
        monkeypatch.setattr(os, "access", lambda *_: False)  # root may read all
    with pytest.raises(UsageError) as ours:
        routing.set_options(Session(), [f"{name}={path}"])
    with pytest.raises(click.BadParameter) as theirs:
        session_of_click([f"{name}={path}"])
    expected = parsing.as_usage_error(theirs.value)
    assert (ours.value.message, ours.value.hint) == (expected.message, expected.hint)
