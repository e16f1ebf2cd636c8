import contextlib
import datetime
import os
import re
import sqlite3
import stat
import string
import zlib

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.errors import DataError, LocalIOError, NoSuchTokenError, UsageError
from clouduploader.store import home, tokens
from clouduploader.store.tokens import Role

NOW = datetime.datetime(2026, 11, 29, 9, 0, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


@pytest.fixture
def store(tmp_path):
    """An empty store."""
    return tokens.TokenStore(tmp_path)


def create(store, user="tom", role=Role.USER, *, note="", expires=None, now=NOW):
    return store.create(user, role, note=note, expires=expires, now=now)


def raw(store, statement):
    """Do something to the file that the program would not."""
    with contextlib.closing(sqlite3.connect(store.path)) as opened, opened:
        return opened.execute(statement).fetchall()


def test_token_is_found_by_all_of_it_alone(store):
    made, text = create(store, "tom", Role.ADMIN, note="nightly", expires=NOW + DAY)
    assert (made.user, made.role, made.note) == ("tom", Role.ADMIN, "nightly")
    assert (made.created, made.expires) == (NOW, NOW + DAY)
    assert store.find(text, now=NOW) == made
    for other in (made.id, text[:-1], text + "0", text.removeprefix("clup_"), text.swapcase(), f" {text}", ""):
        assert store.find(other, now=NOW) is None
    assert store.tokens() == [made]


def test_token_is_as_scanners_know_it(store):
    _, text = create(store)
    assert re.fullmatch("clup_[0-9A-Za-z]{46}", text)
    number = 0
    for digit in text[-6:]:
        number = number * 62 + (string.digits + string.ascii_uppercase + string.ascii_lowercase).index(digit)
    assert number == zlib.crc32(text[:-6].encode())


def test_token_that_has_the_id_of_another_opens_nothing(store):
    made, text = create(store)
    front = text[: len("clup_") + 8] + "0" * 32
    forged = front + tokens._checksum(front)
    assert tokens.token_id(forged) == made.id
    assert store.find(forged, now=NOW) is None


@pytest.mark.parametrize("place", range(5, 51))
def test_misread_character_is_noticed_by_the_checksum(store, place):
    _, text = create(store)
    other = "0" if text[place] != "0" else "1"
    assert tokens.token_id(text) == text[5:13]
    assert tokens.token_id(text[:place] + other + text[place + 1 :]) is None


@hypothesis.given(st.text() | st.from_regex("clup_[0-9A-Za-z]{46}"))
def test_what_is_no_token_has_no_id(text):
    assert tokens.token_id(text) is None


def test_nothing_of_the_secret_is_kept(store):
    _, text = create(store, note="n")
    content = store.path.read_bytes()
    for start in range(13, len(text) - 6):
        assert text[start : start + 6].encode() not in content


def test_tokens_differ(store):
    texts = {create(store)[1] for _ in range(5)}
    assert len(texts) == 5


def test_expired_token_is_worth_nothing_from_that_second_on(store):
    made, text = create(store, expires=NOW + DAY)
    assert store.find(text, now=NOW + DAY - datetime.timedelta(seconds=1)) == made
    assert store.find(text, now=NOW + DAY) is None
    assert store.tokens() == [made]


def test_revoked_token_is_worth_nothing(store):
    gone, text = create(store)
    stays, other = create(store)
    store.remove(gone.id)
    assert store.find(text, now=NOW) is None
    assert store.find(other, now=NOW) == stays
    with pytest.raises(NoSuchTokenError, match=f"there is no token '{gone.id}'"):
        store.remove(gone.id)


def test_store_that_is_not_there_is_empty_and_is_not_made(store):
    assert store.tokens() == []
    assert store.find("clup_", now=NOW) is None
    with pytest.raises(NoSuchTokenError):
        store.remove("0" * 8)
    assert not store.path.exists()


def test_tokens_of_a_user_are_together_in_the_order_of_their_making(store):
    for number, user in enumerate(("tom", "anna", "tom")):
        create(store, user, note=str(number))
    assert [(one.user, one.note) for one in store.tokens()] == [("anna", "1"), ("tom", "0"), ("tom", "2")]


@pytest.mark.parametrize(("user", "note"), [("", ""), ("a\nb", ""), ("tom", "a\x1b[31m"), ("tom", "x" * 256)])
def test_what_cannot_be_shown_is_refused(store, user, note):
    with pytest.raises(UsageError):
        create(store, user, note=note)
    assert not store.path.exists()


def test_file_is_private_and_the_home_knows_it(store):
    create(store)
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert tokens.FILE_NAME == home.TOKENS
    assert home.FORBIDDEN[home.TOKENS] == 0o077


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE token SET role = 'king'",
        "UPDATE token SET created = 4611686018427387904",
        "UPDATE token SET expires = -4611686018427387904",
    ],
)
def test_token_that_makes_no_sense_is_an_error(store, statement):
    _, text = create(store)
    raw(store, statement)
    for call in (lambda: store.tokens(), lambda: store.find(text, now=NOW)):
        with pytest.raises(DataError, match=r"tokens\.sqlite is damaged"):
            call()


# --- when they were used


def test_use_is_noted_once_an_hour(tmp_path):
    uses = tokens.TokenUses(tmp_path)
    assert uses.last("3kTq9ZbX") is None
    uses.note("3kTq9ZbX", now=NOW)
    assert uses.last("3kTq9ZbX") == NOW
    uses.note("3kTq9ZbX", now=NOW + datetime.timedelta(minutes=59))
    assert uses.last("3kTq9ZbX") == NOW
    uses.note("3kTq9ZbX", now=NOW + datetime.timedelta(hours=1))
    assert uses.last("3kTq9ZbX") == NOW + datetime.timedelta(hours=1)
    uses.forget("3kTq9ZbX")
    uses.forget("3kTq9ZbX")
    assert uses.last("3kTq9ZbX") is None


def test_use_is_noted_in_private(tmp_path):
    tokens.TokenUses(tmp_path).note("3kTq9ZbX", now=NOW)
    (directory,) = tmp_path.iterdir()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()] == [0o600]


def test_use_that_cannot_be_noted_is_told(tmp_path):
    (tmp_path / tokens.USES_NAME).touch()
    with pytest.raises(LocalIOError, match="the use of a token can't be noted"):
        tokens.TokenUses(tmp_path).note("3kTq9ZbX", now=NOW)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_use_that_root_notes_is_the_owners_of_the_spool(tmp_path, let_all_enter):
    let_all_enter(tmp_path)
    os.chown(tmp_path, 65534, 65533)
    tokens.TokenUses(tmp_path).note("3kTq9ZbX", now=NOW)
    for path in tmp_path.rglob("*"):
        assert path.stat().st_uid == 65534
