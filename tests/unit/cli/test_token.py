import datetime
import functools
import json
import re

import pytest

from clouduploader.store.tokens import Role, TokenStore, TokenUses


@pytest.fixture
def spool_dir(tmp_path, monkeypatch):
    """The spool that the program uses, and that has the uses of tokens."""
    path = tmp_path / "spool"
    path.mkdir()
    monkeypatch.setenv("CLOUDUPLOADER_SPOOL", str(path))
    return path


@pytest.fixture
def run(run_in_home, spool_dir):
    """Return a function that runs `clouduploader token` and returns exit code, standard output and standard error."""
    return functools.partial(run_in_home, "token")


def now():
    return datetime.datetime.now(datetime.UTC)


def test_token_is_printed_once(run, tmp_path):
    code, out, err = run("create", "--user", "tom", "--note", "nightly build")
    assert (code, err) == (0, "")
    text = out.rstrip("\n")
    found = TokenStore(tmp_path).find(text, now=now())
    assert (found.user, found.role, found.note, found.expires) == ("tom", Role.USER, "nightly build", None)
    for words in (["list"], ["list", "--json"], ["list", "--verbose"]):
        _, out, err = run(*words)
        assert found.id in out
        assert text[13:45] not in out + err


def test_token_has_the_role_and_the_life_that_are_asked_for(run, tmp_path):
    for words, lifetime in ((["--expires", "30d"], 30 * 86400), (["--expires", "90m", "--role", "admin"], 5400)):
        text = run("create", "--user", "tom", *words)[1].rstrip("\n")
        found = TokenStore(tmp_path).find(text, now=now())
        assert (found.expires - found.created).total_seconds() == lifetime
    assert found.role is Role.ADMIN


def test_list_shows_when_a_token_was_used(run, tmp_path, spool_dir):
    run("create", "--user", "tom")
    run("create", "--user", "anna", "--role", "worker", "--note", "host 7")
    header, anna, tom = run("list")[1].splitlines()
    assert header.split("\t") == ["id", "user", "role", "created", "expires", "used", "note"]
    assert anna.split("\t")[1:3] + anna.split("\t")[5:] == ["anna", "worker", "", "host 7"]
    TokenUses(spool_dir).note(tom.split("\t")[0], now=datetime.datetime(2026, 11, 29, 9, 0, tzinfo=datetime.UTC))
    (line,) = run("list", "--user", "tom")[1].splitlines()[1:]
    assert line.split("\t")[5] == "2026-11-29T09:00:00Z"


def test_revoked_token_is_gone_with_its_use(run, tmp_path, spool_dir):
    names = [json.loads(run("create", "--user", "tom", "--json")[1])["data"]["id"] for _ in range(2)]
    TokenUses(spool_dir).note(names[0], now=now())
    code, out, err = run("revoke", names[0])
    assert (code, out) == (64, "")
    assert f"Revoke the token {names[0]}?" in err
    assert run("revoke", "--yes", names[0]) == (0, "", "")
    assert [one.id for one in TokenStore(tmp_path).tokens()] == names[1:]
    assert TokenUses(spool_dir).last(names[0]) is None
    code, _, err = run("revoke", names[0])
    assert code == 66
    assert f"there is no token '{names[0]}'" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [(["create"], "--user is missing"), (["create", "--user", ""], "can't be the name of a user"),
     (["create", "--user", "tom", "--role", "king"], "must be one of user, admin, worker, monitor"),
     (["create", "--user", "tom", "--expires", "soon"], "is no span of time such as 90m, 12h or 2d"),
     (["create", "--user", "tom", "--expires", "999999w"], "a token can't live for so long"),
     (["create", "--user", "tom", "--expires", "0d"], "a token can't live for no time"),
     (["create", "--user", "tom", "--note", "a\nb"], "a note must have at most 255 characters"),
     (["revoke"], "ID... is missing")],
)  # fmt: skip
def test_wrong_words_are_refused(run, words, said):
    code, out, err = run(*words)
    assert (code, out) == (64, "")
    assert said in err


def test_token_goes_nowhere_but_to_standard_output(run, tmp_path):
    code, out, err = run("create", "--user", "tom", "--verbose")
    assert (code, err) == (0, "")
    assert re.fullmatch("clup_[0-9A-Za-z]{46}\n", out)
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or out.strip().encode() not in path.read_bytes()
