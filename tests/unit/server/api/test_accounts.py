"""Accounts by the API: no secret comes back, and no user reaches another's."""

import concurrent.futures
import threading

import pytest
from fakes.running_server import PATIENCE_SECONDS

from clouduploader.admin import accounts as admin_accounts
from clouduploader.errors import NetworkError
from clouduploader.server import cloud_threads
from clouduploader.store.accounts import AccountStore
from clouduploader.store.keyring import Keyring

SECRET = "this is the secret of tom"
AZURE = {"tenant": "11111111-1111-1111-1111-111111111111", "application_key": SECRET}


@pytest.fixture
def keys(home):
    """A home with a key."""
    Keyring(home, {}).rsa.generate()
    return home


def test_account_is_made_filled_and_removed(ask_as, keys):
    status, made = ask_as("tom", "POST", "/accounts", {"target": "azure"})
    assert (status, made["user"], made["target"], made["values"], made["secrets"]) == (201, "tom", "azure", {}, [])
    status, changed = ask_as("tom", "PUT", "/accounts/azure", {"values": AZURE})
    assert (status, changed["values"]) == (200, {"tenant": AZURE["tenant"]})
    assert changed["secrets"] == ["application_key"]
    assert ask_as("tom", "GET", "/accounts/azure") == (200, changed)
    assert ask_as("tom", "GET", "/accounts") == (200, {"accounts": [changed]})
    assert AccountStore(keys).find("tom", "azure").values["application_key"] != SECRET
    assert SECRET not in ask_as.server.log.getvalue()
    assert ask_as("tom", "DELETE", "/accounts/azure") == (204, None)
    assert ask_as("tom", "GET", "/accounts/azure")[0] == 404


def test_account_of_another_user_is_as_one_that_is_not_there(ask_as, keys):
    ask_as("anna", "POST", "/accounts", {"target": "azure"})
    for method, path, document in (
        ("GET", "", None), ("PUT", "", {"values": {}}), ("DELETE", "", None), ("GET", "/guide", None),
        ("POST", "/verify", None),
    ):  # fmt: skip
        wanted = ask_as("tom", method, f"/accounts/azure{path}?user=eve", document)
        assert ask_as("tom", method, f"/accounts/azure{path}?user=anna", document) == wanted
        assert wanted[0] == 404
    assert ask_as("tom", "POST", "/accounts", {"target": "azure", "user": "anna"})[0] == 404
    assert ask_as("tom", "GET", "/accounts?user=anna")[1] == {"accounts": []}
    assert [one.user for one in AccountStore(keys).accounts()] == ["anna"]


def test_administrator_keeps_all(ask_as, keys):
    assert ask_as("root", "POST", "/accounts", {"target": "azure", "user": "tom/x"})[0] == 201
    status, changed = ask_as("root", "PUT", "/accounts/azure?user=tom/x", {"values": AZURE})
    assert (status, changed["user"]) == (200, "tom/x")
    assert [one["user"] for one in ask_as("root", "GET", "/accounts?target=azure")[1]["accounts"]] == ["tom/x"]


def test_external_id_is_the_services(ask_as):
    made = ask_as("tom", "POST", "/accounts", {"target": "ec2"})[1]
    assert len(made["values"]["external_id"]) > 20
    assert ask_as("tom", "POST", "/accounts", {"target": "ec2"})[0] == 409
    chosen = {"values": {"external_id": "that-of-a-user-of-another-service"}}
    status, problem = ask_as("tom", "PUT", "/accounts/ec2", chosen)
    assert (status, problem["detail"]) == (403, "external_id is chosen by the service")
    assert ask_as("tom", "GET", "/accounts/ec2")[1] == made
    assert ask_as("root", "PUT", "/accounts/ec2?user=tom", chosen)[1]["values"] == chosen["values"]


@pytest.mark.parametrize(
    ("target", "values", "status"),
    [("azure", {"nothing": "x"}, 422), ("azure", {"tenant": "\n"}, 422), ("azure", {"application_key": "short"}, 422),
     ("directory", {"path": "x"}, 404)],
)  # fmt: skip
def test_value_that_is_none_is_refused_and_not_shown(ask_as, keys, target, values, status):
    ask_as("tom", "POST", "/accounts", {"target": "azure"})
    found, problem = ask_as("tom", "PUT", f"/accounts/{target}", {"values": values})
    assert found == status
    assert "short" not in problem["detail"]
    assert AccountStore(keys).find("tom", "azure").values == {}


def test_account_for_a_target_without_any_is_refused(ask_as):
    assert ask_as("tom", "POST", "/accounts", {"target": "directory"})[0] == 422
    assert ask_as("tom", "POST", "/accounts", {"target": "nothing"})[0] == 422


def test_guide_and_verification_are_the_platforms(ask_as, keys):
    ask_as("tom", "POST", "/accounts", {"target": "openstack"})
    status, guide = ask_as("tom", "GET", "/accounts/openstack/guide")
    assert status == 200
    assert guide["policies"]
    assert ask_as("tom", "GET", "/accounts/openstack/guide?extra=none")[0] == 422
    status, problem = ask_as("tom", "POST", "/accounts/openstack/verify")
    assert (status, problem["code"]) == (422, "data")  # it has no values yet


def test_cloud_that_does_not_answer_takes_threads_of_its_own_and_few_for_a_user(ask_as, monkeypatch):
    """A user can name any host as the cloud; six such requests held up all others, as each needs a thread."""
    asking, is_over, names = threading.Semaphore(0), threading.Event(), []

    def verify(*_args, **_options):
        names.append(threading.current_thread().name)
        asking.release()
        is_over.wait(PATIENCE_SECONDS)
        raise NetworkError("the cloud did not answer in time")

    ask_as("tom", "POST", "/accounts", {"target": "openstack"})
    monkeypatch.setattr(admin_accounts, "verify", verify)
    wanted = ("tom", "POST", "/accounts/openstack/verify")
    with concurrent.futures.ThreadPoolExecutor() as threads:
        asked = [threads.submit(ask_as, *wanted) for _ in range(cloud_threads.OF_ONE_USER)]
        try:
            assert all(asking.acquire(timeout=PATIENCE_SECONDS) for _ in asked)
            assert ask_as(*wanted)[1]["code"] == "busy"
        finally:
            is_over.set()
        assert {answer.result()[1]["code"] for answer in asked} == {"network"}
    assert all(name.startswith("cloud") for name in names)
    assert ask_as(*wanted)[1]["code"] == "network"


def test_value_of_another_user_is_refused_without_the_name(ask_as):
    role = "arn:aws:iam::123456789012:role/upload"
    for user in ("anna", "tom"):
        ask_as(user, "POST", "/accounts", {"target": "ec2"})
    assert ask_as("anna", "PUT", "/accounts/ec2", {"values": {"arn": role}})[0] == 200
    status, problem = ask_as("tom", "PUT", "/accounts/ec2", {"values": {"arn": role}})
    assert (status, problem["code"]) == (409, "conflict")
    assert "anna" not in str(problem)
    status, problem = ask_as("root", "PUT", "/accounts/ec2?user=tom", {"values": {"arn": role}})
    assert (status, problem["code"]) == (422, "taken_value")
    assert "the account of anna" in problem["detail"]


def test_values_are_entered_all_or_none(ask_as, keys):
    ask_as("tom", "POST", "/accounts", {"target": "azure"})
    assert ask_as("tom", "PUT", "/accounts/azure", {"values": AZURE | {"application_id": ""}})[0] == 422
    assert ask_as("tom", "GET", "/accounts/azure")[1]["values"] == {}
