import os
import re

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.util import filenames

# What a hostile name is made of, and long enough to be cut.
hostile = st.one_of(
    st.text(st.characters(), max_size=400),
    st.text(st.sampled_from("a./\\- +~_é大\udcff\0\n\x85\u202e"), max_size=400),
    st.binary(max_size=300).map(os.fsdecode),
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("appliance.x86_64-1.0.raw.xz", "appliance.x86_64-1.0.raw.xz"),
        ("o'brien & sons.raw", "o'brien & sons.raw"),
        ("größe 大.raw", "größe 大.raw"),
        ("../../etc/passwd", "passwd"),
        ("/srv/a.raw", "a.raw"),
        ("dir/", "dir"),
        ("c:\\images\\a.raw", "a.raw"),
        (".hidden.raw", "hidden.raw"),
        ("--help", "help"),
        ("-x.raw", "x.raw"),
        (" - .a", "a"),
        ("..", "image"),
        ("/", "image"),
        ("", "image"),
        ("a\nb.raw", "a_b.raw"),
        ("caf\udce9.raw", "caf_.raw"),
        ("x\0.raw", "x_.raw"),
        ("a\u202eb.raw", "a_b.raw"),
        ("a.raw  ", "a.raw"),
    ],
)
def test_base_name_is_safe_and_recognisable(name, expected):
    assert filenames.base_name(name) == expected


@hypothesis.given(hostile)
def test_base_name_can_always_be_shown_and_linked(name):
    found = filenames.base_name(name)
    assert found.isprintable()
    assert "/" not in found
    assert not found.startswith((".", "-", " "))
    assert found == found.strip()
    assert 0 < len(found.encode()) <= filenames.MAX_LENGTH


@hypothesis.given(hostile)
def test_base_name_of_a_base_name_is_itself(name):
    found = filenames.base_name(name)
    assert filenames.base_name(found) == found


def test_long_name_keeps_its_ending(tmp_path):
    found = filenames.base_name("é" * 300 + ".raw.xz")
    assert found.endswith("é.raw.xz")
    (tmp_path / found).touch()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("appliance.x86_64-1.0+git~2.raw.xz", "appliance.x86_64-1.0+git~2.raw.xz"),
        ("o'brien & sons;rm -rf.raw", "o_brien___sons_rm_-rf.raw"),
        ("größe.raw", "gr__e.raw"),
        ("+a.raw", "a.raw"),
        ("_a.raw", "a.raw"),
        ("'", "image"),
        ("大", "image"),
    ],
)
def test_plain_name_is_safe_in_any_shell(name, expected):
    assert filenames.plain(name) == expected


@hypothesis.given(hostile)
def test_plain_name_begins_with_a_letter_or_digit(name):
    found = filenames.plain(filenames.base_name(name))
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+~-]*", found)
    assert len(found) <= filenames.MAX_LENGTH


def test_plain_name_that_is_cut_begins_with_a_letter_or_digit():
    assert filenames.plain("a" * 10 + "+" * 250 + ".raw") == "raw"
