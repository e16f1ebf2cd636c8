import contextlib
import json
import os
import traceback
from pathlib import Path

import hypothesis
import jsonschema
import pytest
from hypothesis import strategies as st

from clouduploader.errors import LocalIOError, MissingFileError, TargetDataError
from clouduploader.plugin import Field, FieldKind
from clouduploader.plugin.fields import PGP_MARK, json_schema
from clouduploader.store import target_data

SECRET = "correct horse battery staple"
ARMORED = f"{PGP_MARK}\n\n{{}}\n-----END PGP MESSAGE-----\n"
FIELDS = (
    Field(
        name="place",
        description="Where.",
        is_required=True,
        pattern="[a-z]+-[0-9]",
        pattern_meaning="such as up-1",
        min_length=3,
        max_length=8,
    ),
    Field(name="mode", description="How.", allowed=("fast", "slow")),
    Field(name="password", description="Secret.", is_secret=True, min_length=6, max_length=40),
    Field(name="is_new", description="Whether it is new.", kind=FieldKind.BOOLEAN),
    Field(name="size", description="How much.", kind=FieldKind.INTEGER, minimum=1, maximum=9),
    Field(name="tags", description="Words.", kind=FieldKind.OBJECT),
    Field(name="note", description="Anything."),
    Field(
        name="others",
        description="More places.",
        kind=FieldKind.ARRAY,
        pattern="[a-z]+-[0-9]",
        pattern_meaning="such as up-1",
        max_length=8,
    ),
    Field(name="modes", description="More ways.", kind=FieldKind.ARRAY, allowed=("fast", "slow")),
    Field(name="pins", description="Secrets.", kind=FieldKind.ARRAY, is_secret=True, min_length=4),
)
RIGHT = {"place": "up-1"}


class Keys:
    """Stands for both kinds of keys: what is in the braces of ARMORED, or behind `RSA:`, is the text."""

    def __init__(self):
        self.gpg = self.rsa = self

    def is_encrypted(self, value):
        return value.startswith("RSA:")

    def decrypt(self, message):
        text = message.removeprefix("RSA:").removeprefix(PGP_MARK)
        text = text.rpartition("\n-----END")[0].strip() or text
        if text == "broken":
            raise TargetDataError("it can't be decrypted")
        return text


class Platform:
    def __init__(self, fields=FIELDS, problems=()):
        self.fields = fields
        self._problems = list(problems)

    def problems(self, targetdata):
        return self._problems


def armored(text):
    return ARMORED.format(text)


def read(document, **platform):
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return target_data.read(data, Platform(**platform), Keys())


def message(document, **platform):
    with pytest.raises(TargetDataError) as caught:
        read(document, **platform)
    return caught.value.message


@pytest.fixture
def no_secret():
    """Check that an exception, with all that it came from, does not show a text."""

    def check(exc, *secrets):
        seen = set()
        while exc is not None and id(exc) not in seen:
            seen.add(id(exc))
            shown = f"{exc!r} {exc} {vars(exc)} {[repr(value) for value in exc.args]}"
            shown += "".join(traceback.format_exception(exc, chain=False)[1:])
            shown += "".join(str(getattr(exc, name, "")) for name in ("doc", "object"))
            assert not [secret for secret in secrets if secret in shown]
            exc = exc.__cause__ or exc.__context__

    return check


def test_values_are_read_and_absent_ones_left_out():
    document = {"place": "up-1", "mode": "", "password": None, "is_new": False, "size": 3, "tags": {"a": ""}}
    assert read(document).values == {"place": "up-1", "is_new": False, "size": 3, "tags": {"a": ""}}


def test_unknown_keys_are_named_but_not_kept():
    found = read({**RIGHT, "user_id": 7, "x": [[1]]})
    assert found.unknown_keys == ("user_id", "x")
    assert found.values == RIGHT


def test_all_wrong_values_are_named_at_once():
    document = {"mode": "warp", "password": "abc", "is_new": "true", "size": True, "tags": {"a": 1}, "note": [1]}
    assert message(document) == (
        "the target data are wrong: "
        "place is missing, but must be a string of 3 to 8 characters (such as up-1); "
        'mode is "warp", but must be fast or slow; '
        "password is a string of 3 characters, but must have 8 to 40 characters; "
        'is_new is "true", but must be true or false; '
        "size is true, but must be an integer 1 to 9; "
        "tags is an object, but must be an object whose values are strings; "
        "note is a list, but must be a string"
    )


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("UP-1", '"UP-1", but takes values such as up-1'),
        ("up-1\n", r'"up-1\n", but takes values such as up-1'),
        ("\x1b[2J-1", r'"\u001b[2J-1", but takes values such as up-1'),
        ("u" * 70, f'"{"u" * 60}..." (70 characters), but must have 3 to 8 characters'),
        ("", "missing, but must be a string of 3 to 8 characters (such as up-1)"),
        (1, "the number 1, but must be a string of 3 to 8 characters (such as up-1)"),
    ],
)
def test_wrong_string_is_told_which_rule_it_breaks(value, problem):
    assert message({"place": value}) == f"the target data are wrong: place is {problem}"


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("size", 0, "the number 0"),
        ("size", 1.5, "the number 1.5"),
        ("size", "8", '"8"'),
        ("size", 10**400, f"the number 1{'0' * 59}"),
        ("is_new", 1, "the number 1"),
        ("password", 123456789, "a number"),
        ("password", ["x"], "a list"),
        ("tags", ["a"], "a list"),
        ("mode", "fast ", '"fast "'),
        ("others", 1, "the number 1"),
        ("others", ["up-1", 2], "a list with the number 2 in it"),
        ("others", ["up-1", ""], 'a list with "" in it'),
        ("others", ["up-1", None], "a list with null in it"),
        ("others", [["up-1"]], "a list with a list in it"),
        ("modes", ["fast", "warp"], 'a list with "warp" in it'),
    ],
)
def test_wrong_value_is_shown_on_one_line(name, value, found):
    text = message({**RIGHT, name: value})
    assert text.startswith(f"the target data are wrong: {name} is {found}, but must be ")
    assert "\n" not in text
    assert "; " not in text


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("others", "up-1", '"up-1", but must be a list of strings'),
        ("others", ["up-1", "UP-2"], 'a list with "UP-2" in it, but takes values such as up-1'),
        ("others", ["u" * 9], f'a list with "{"u" * 9}" in it, but must have at most 8 characters'),
        (
            "pins",
            ["123456789", "abc"],
            "a list with a string of 3 characters in it, but must have at least 8 characters",
        ),
    ],
)
def test_wrong_string_of_a_list_is_told_which_rule_it_breaks(name, value, problem):
    assert message({**RIGHT, name: value}).startswith(f"the target data are wrong: {name} is {problem}")


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("others", "a list of strings of at most 8 characters (such as up-1)"), ("modes", "a list of fast or slow")],
)
def test_wrong_list_is_told_what_it_must_hold(name, allowed):
    assert message({**RIGHT, name: [False]}).endswith(f"{name} is a list with false in it, but must be {allowed}")


def test_list_is_read_and_an_empty_one_is_absent():
    found = read({**RIGHT, "others": ["up-1", "up-2"], "modes": []})
    assert found.values == {**RIGHT, "others": ["up-1", "up-2"]}


def test_empty_list_is_missing_where_one_is_required():
    field = Field(name="all", description="All.", kind=FieldKind.ARRAY, is_required=True)
    assert message({"all": []}, fields=[field]).endswith("all is missing, but must be a list of strings")
    validator = jsonschema.Draft202012Validator(json_schema([field]))
    assert [validator.is_valid({"all": value}) for value in ([], ["x"], [""])] == [False, True, True]


def test_encrypted_strings_of_a_list_are_decrypted_and_secret():
    found = read({**RIGHT, "others": ["up-1", armored("up-2")], "pins": ["12345678", "RSA:56789012"]})
    assert found.values == {**RIGHT, "others": ["up-1", "up-2"], "pins": ["12345678", "56789012"]}
    assert found.secrets == ("up-2", "12345678", "56789012")
    validator = jsonschema.Draft202012Validator(json_schema(Platform().fields))
    validator.validate({**RIGHT, "others": [armored("x")], "pins": [armored("x"), "QUJD" * 43]})


def test_integer_with_a_zero_fraction_is_an_integer():
    assert read(b'{"place": "up-1", "size": 8.0}').values["size"] == 8


def test_problems_of_the_platform_are_told():
    assert message(RIGHT, problems=["a is odd", "b too"]) == "the target data are wrong: a is odd; b too"


def test_problems_of_the_platform_wait_for_right_fields():
    assert "odd" not in message({}, problems=["a is odd"])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON: Expecting property name enclosed in double quotes in line 1, column 2"),
        (b"[]", "must be a JSON object, not a list"),
        (b"null", "must be a JSON object, not null"),
        (b'"x"', "must be a JSON object, not a string of 1 characters"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": -Infinity}', "-Infinity is no JSON number"),
        (b'{"a": 1e999}', "a number is too large"),
        (b'{"a": ' + b"1" * 5000 + b"}", "a number is too long"),
        (b'{"a": 1, "a": 1}', 'the key "a" is there twice'),
        (b'{"b": {"a": 1, "a": 1}}', 'the key "a" is there twice'),
        (b'{"a": "\\ud800"}', "half of a surrogate pair"),
        (b'{"a": [["\\udfff"]]}', "half of a surrogate pair"),
        (b'{"\\ud800": 1}', "half of a surrogate pair"),
        (b'{"a": "\xff"}', "not UTF-8: byte 7 is wrong"),
        (b'\xef\xbb\xbf{"a": 1}', "byte order mark"),
        ('{"a": 1}'.encode("utf-16"), "byte order mark"),
        (b'{"a": 1} x', "not JSON: Extra data"),
        (b'{"a": "\n"}', "not JSON: Invalid control character"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 150_000, "nested too deeply"),
        (b'{"a": "' + b"x" * target_data.MAX_SIZE_BYTES + b'"}', "longer than 1048576 bytes"),
    ],
)
def test_what_is_no_strict_json_is_refused(data, words):
    assert words in message(data)


@hypothesis.given(st.binary())
def test_any_bytes_are_read_or_refused(data):
    with contextlib.suppress(TargetDataError):
        assert isinstance(target_data.parse(data), dict)


@hypothesis.given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()))
def test_any_object_is_parsed_as_it_is(document):
    assert target_data.parse(json.dumps(document).encode()) == document


@pytest.mark.parametrize("lead", ["", "\n \t"])
def test_encrypted_value_is_decrypted_and_secret(lead):
    found = read({"place": lead + armored("up-2"), "tags": {"a": armored("word"), "b": "c"}})
    assert found.values == {"place": "up-2", "tags": {"a": "word", "b": "c"}}
    assert found.secrets == ("up-2", "word")


@pytest.mark.parametrize("value", [SECRET, f"RSA:{SECRET}", armored(SECRET)])
def test_secret_field_is_taken_in_every_form(value):
    found = read({**RIGHT, "password": value})
    assert found.values["password"] == SECRET
    assert found.secrets == (SECRET,)
    assert SECRET not in repr(found)


def test_field_that_is_not_secret_takes_no_rsa():
    assert read({**RIGHT, "note": "RSA:x"}).values["note"] == "RSA:x"


def test_data_encrypted_as_a_whole_are_read():
    inner = json.dumps({**RIGHT, "password": SECRET, "note": armored("inner")})
    found = read(b"\n" + armored(inner).encode())
    assert found.values == {**RIGHT, "password": SECRET, "note": "inner"}
    assert found.secrets == (SECRET, "inner")


@pytest.mark.parametrize(
    "inner",
    [f'{{"place": "{SECRET}"}}', f'{{"{SECRET[:3]}', f"{SECRET}", f'["{SECRET}"]', f'{{"place": "{SECRET}\\ud800"}}'],
)
def test_nothing_of_data_encrypted_as_a_whole_is_shown(inner, no_secret):
    with pytest.raises(TargetDataError) as caught:
        read(armored(inner).encode())
    no_secret(caught.value, SECRET)


def test_value_that_was_encrypted_is_not_shown(no_secret):
    document = {
        "place": armored(SECRET),
        "password": f"RSA:{SECRET * 3}",
        "mode": armored(SECRET),
        "others": ["up-1", armored(SECRET)],
    }
    with pytest.raises(TargetDataError) as caught:
        read(document)
    assert "place is a string of 28 characters" in caught.value.message
    assert "password is a string of 84 characters" in caught.value.message
    assert "mode is a string of 28 characters" in caught.value.message
    no_secret(caught.value, SECRET)


def test_value_that_cannot_be_decrypted_is_named_with_the_others():
    text = message({"place": armored("broken"), "mode": "warp"})
    assert "place: it can't be decrypted; mode is" in text


def test_unknown_value_is_not_decrypted():
    assert read({**RIGHT, "other": armored("broken")}).unknown_keys == ("other",)


@pytest.mark.parametrize("value", [ARMORED.format("broken"), "RSA:broken"])
def test_check_takes_what_is_encrypted_for_right_and_decrypts_nothing(value):
    target_data.check(json.dumps({**RIGHT, "password": value, "pins": [value]}).encode(), Platform(), Keys())
    target_data.check(ARMORED.format("broken").encode(), Platform(), Keys())


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({}, "place is missing"),
        ({**RIGHT, "mode": "RSA:slow"}, 'mode is "RSA:slow"'),
        ({**RIGHT, "size": ARMORED.format("5")}, "size is"),
        ({**RIGHT, "password": "short"}, "password is"),
    ],
)
def test_check_finds_what_is_wrong_in_clear(document, found):
    with pytest.raises(TargetDataError) as caught:
        target_data.check(json.dumps(document).encode(), Platform(), Keys())
    assert found in caught.value.message


def test_check_asks_the_platform():
    with pytest.raises(TargetDataError, match="never on sundays"):
        target_data.check(json.dumps(RIGHT).encode(), Platform(problems=["never on sundays"]), Keys())


def test_schema_is_valid_and_says_all():
    schema = json_schema(Platform().fields)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["required"] == ["place"]
    assert list(schema["properties"]) == [field.name for field in FIELDS]


scalars = st.none() | st.booleans() | st.integers(-3, 12) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.sampled_from(["", "fast", "up-1", "up-1\n", "longer-1", "toolong-1", "x" * 6]) | st.text(max_size=45)
anything = scalars | texts | st.lists(texts, max_size=2) | st.dictionaries(texts, texts | scalars, max_size=2)


@hypothesis.settings(max_examples=400)
@hypothesis.given(st.dictionaries(st.sampled_from([field.name for field in FIELDS]), anything))
def test_schema_and_check_agree(document):
    data = json.dumps(document).encode()
    try:
        target_data.read(data, Platform(), Keys())
        is_right = True
    except TargetDataError:
        is_right = False
    validator = jsonschema.Draft202012Validator(json_schema(Platform().fields))
    assert validator.is_valid(document) == is_right


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
@hypothesis.given(value=anything)
def test_schema_and_check_agree_field_by_field(field, value):
    document = {field.name: value}
    try:
        target_data.read(json.dumps(document).encode(), Platform([field]), Keys())
        is_right = True
    except TargetDataError:
        is_right = False
    validator = jsonschema.Draft202012Validator(json_schema([field]))
    assert validator.is_valid(document) == is_right


def test_schema_takes_encrypted_values():
    document = {"place": armored("x"), "password": "QUJD" * 43 + "\n"}
    jsonschema.Draft202012Validator(json_schema(Platform().fields)).validate(document)


def test_file_of_target_data_is_read_but_not_without_end(tmp_path):
    (tmp_path / "data").write_bytes(b"x" * (3 << 20))
    assert len(target_data.read_file(tmp_path / "data")) == (1 << 20) + 1
    with pytest.raises(MissingFileError, match="there are no target data"):
        target_data.read_file(tmp_path / "none")
    with pytest.raises(LocalIOError, match="Is a directory"):
        target_data.read_file(tmp_path)


def test_target_data_of_a_spool_are_a_regular_file(tmp_path):
    (tmp_path / "7.data").symlink_to(tmp_path / "other")
    (tmp_path / "other").write_bytes(b"{}")
    assert target_data.read_file(tmp_path / "7.data") == b"{}"
    with pytest.raises(LocalIOError):
        target_data.read_file(tmp_path / "7.data", is_of_spool=True)


def test_data_that_the_server_decrypted_are_not_decrypted_again():
    document = {
        **RIGHT,
        "note": ARMORED.format("x"),
        "password": "RSA:sesame",
        target_data.SECRETS_KEY: ["sesame!", ""],
    }
    found = read(document)
    assert found.values == {**RIGHT, "note": ARMORED.format("x"), "password": "RSA:sesame"}
    assert (found.secrets, found.unknown_keys) == (("sesame!", "RSA:sesame"), ())


def test_no_value_of_data_that_the_server_decrypted_is_shown(no_secret):
    with pytest.raises(TargetDataError, match="place") as caught:
        read({"place": SECRET, target_data.SECRETS_KEY: []})
    no_secret(caught.value, SECRET)


@pytest.mark.parametrize("secrets", ["x", 7, {}, [7], [None], [["x"]]])
def test_what_was_secret_is_a_list_of_strings(secrets):
    with pytest.raises(TargetDataError, match="clouduploader_secrets must be a list of strings"):
        read({**RIGHT, target_data.SECRETS_KEY: secrets})


@pytest.mark.parametrize("form", ["/proc/self/fd/{}", "/dev/fd/{}"])
def test_open_file_is_read_from_its_beginning_by_its_descriptor(form):
    descriptor = os.memfd_create("data", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, b"{}")
        path = Path(form.format(descriptor))
        assert [target_data.read_file(path), target_data.read_file(path)] == [b"{}", b"{}"]
    finally:
        os.close(descriptor)
    with pytest.raises(LocalIOError):
        target_data.read_file(path)
    with pytest.raises(LocalIOError):
        target_data.read_file(Path("/proc/self/fd/999999999"))


def test_open_pipe_is_read_to_its_end():
    reader, writer = os.pipe()
    os.write(writer, b"{}")
    os.close(writer)
    assert target_data.read_file(Path(f"/dev/fd/{reader}")) == b"{}"
    os.close(reader)
