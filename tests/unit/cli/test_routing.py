import os

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.cli import main, routing

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
def test_contract_is_recognized(options, operands):
    assert routing.route([*options, *operands]) == [*options, "contract", "--", *operands]


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
def test_other_command_line_is_left_alone(arguments):
    assert routing.route(arguments) == arguments


ARGUMENT = st.binary(max_size=30).filter(lambda value: b"\0" not in value).map(os.fsdecode)
OPTION_LIKE = st.sampled_from(["-v", "-q", "--home", "--spool=/x", "--json", "--", "-", *main.COMMANDS])
ANY = st.one_of(ARGUMENT, st.text(st.characters(exclude_characters="\0"), max_size=30), OPTION_LIKE)
PATH = ANY.map(lambda value: "/" + value)
TARGET = ANY.filter(lambda value: not value.startswith(("-", "/")))
OPTIONS = st.lists(
    st.sampled_from([["-v"], ["--quiet"], ["--home", "/h"], ["--spool", "s"], ["--home=/h"]]), max_size=3
).map(lambda groups: [word for group in groups for word in group])


@hypothesis.given(OPTIONS, ANY, TARGET, PATH, PATH, st.lists(ANY, min_size=1, max_size=2))
def test_contract_survives_any_value(options, user, target, upload_file, targetdata, rest):
    operands = [user, target, upload_file, targetdata, *rest]
    assert routing.route([*options, *operands]) == [*options, "contract", "--", *operands]


@hypothesis.given(st.lists(ANY, max_size=9))
def test_route_inserts_the_command_or_nothing(arguments):
    inserted = [
        [*arguments[:start], "contract", "--", *arguments[start:]]
        for start in range(len(arguments))
        if len(arguments) - start in routing.OPERAND_COUNTS
    ]
    assert routing.route(arguments) in [arguments, *inserted]
