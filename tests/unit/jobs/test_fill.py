"""Target data with the values of the account that the service keeps."""

import datetime
import json

import pytest

from clouduploader.errors import NoSuchAccountError, TargetDataError, UnknownTargetError
from clouduploader.jobs import fill
from clouduploader.store import config
from clouduploader.store.accounts import AccountStore

NOW = datetime.datetime(2026, 11, 29, 9, 0, tzinfo=datetime.UTC)
ROLE = "arn:aws:iam::123456789012:role"
GIVEN = {"region": "us-east-1", "ami_name": "image"}
ACCOUNT = {"external_id": "4711", "arn": f"{ROLE}/tom"}


@pytest.fixture
def filled(tmp_path):
    """Return a function that fills data for tom, who has an account for ec2; anna has another one."""
    store = AccountStore(tmp_path)
    store.create("tom", "ec2", ACCOUNT, of_one_user=ACCOUNT, now=NOW)
    store.create("anna", "ec2", {"external_id": "4712", "arn": f"{ROLE}/anna"}, of_one_user=ACCOUNT, now=NOW)
    loaded = config.load(home=tmp_path, spool=tmp_path, environment={})

    def call(data, *, user="tom", target="ec2", is_bound=True):
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        return json.loads(fill.fill(loaded, data, user=user, target=target, is_bound=is_bound))

    return call


@pytest.mark.parametrize(
    ("given", "is_bound"),
    [(GIVEN, True), (GIVEN, False), (GIVEN | ACCOUNT, True), (GIVEN | {"arn": "", "external_id": None}, True)],
)
def test_account_is_filled_in(filled, given, is_bound):
    assert filled(given, is_bound=is_bound) == GIVEN | ACCOUNT


@pytest.mark.parametrize(
    "foreign",
    [
        {"arn": f"{ROLE}/anna"},
        {"external_id": "4712"},
        {"arn": 7},
        {"arn": ["x"]},
        {"arn": "-----BEGIN PGP MESSAGE-----"},
    ],
)
def test_other_account_is_refused_to_whom_is_bound(filled, foreign):
    (name,) = foreign
    with pytest.raises(TargetDataError, match=f"may not have {name}: that is taken from the account of tom"):
        filled(GIVEN | foreign)


@pytest.mark.parametrize(("target", "name"), [("gce", "project"), ("openstack", "cloud")])
def test_what_the_services_own_identity_would_be_used_for_is_the_accounts_too(filled, tmp_path, target, name):
    AccountStore(tmp_path).create("tom", target, {name: "toms-own"}, now=NOW)
    with pytest.raises(TargetDataError, match=f"may not have {name}"):
        filled({name: "annas-own"}, target=target)


def test_other_account_is_taken_from_whom_is_not(filled):
    assert filled({**GIVEN, "arn": f"{ROLE}/anna"}, is_bound=False) == {**GIVEN, **ACCOUNT, "arn": f"{ROLE}/anna"}


def test_user_without_an_account_opens_none(filled):
    for given in (GIVEN, {**GIVEN, **ACCOUNT}):
        with pytest.raises(NoSuchAccountError, match="eve has no account for ec2"):
            filled(given, user="eve")
    assert filled({**GIVEN, **ACCOUNT}, user="eve", is_bound=False) == GIVEN | ACCOUNT
    with pytest.raises(NoSuchAccountError):
        filled(GIVEN, user="eve", is_bound=False)


def test_what_is_encrypted_as_a_whole_hides_no_account(filled, tmp_path):
    armored = b"-----BEGIN PGP MESSAGE-----\n"
    with pytest.raises(TargetDataError, match="are encrypted as a whole"):
        filled(armored)
    loaded = config.load(home=tmp_path, spool=tmp_path, environment={})
    assert fill.fill(loaded, armored, user="tom", target="ec2", is_bound=False) == armored


@pytest.mark.parametrize("data", [b"[]", b'{"a": 1, "a": 2}', b'{"region": 7}', b"\xff"])
def test_what_is_wrong_is_refused(filled, data):
    with pytest.raises(TargetDataError):
        filled(data)


def test_platform_without_accounts_needs_none(filled):
    assert filled(b"", user="eve", target="directory") == {}
    with pytest.raises(UnknownTargetError):
        filled(b"", target="nowhere")
