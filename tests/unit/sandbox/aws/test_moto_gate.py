"""Requests on their way to moto: reading calls, faults on purpose, the record."""

import json
import re

import pytest
from werkzeug.test import Client
from werkzeug.wrappers import Response

from clouduploader.sandbox.aws.amz_date import serialize_amz_date
from clouduploader.sandbox.aws.faults import AwsFault
from clouduploader.sandbox.aws.moto_gate import MotoGate
from clouduploader.sandbox.call_record import CallRecord
from clouduploader.sandbox.clock import CloudClock
from clouduploader.sandbox.faults import Faults

SIGNATURE = "AWS4-HMAC-SHA256 Credential={key}/20261122/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=0"


class Account:
    """Stands in for the account: no temporary credentials, one auditor."""

    auditor_key_id = "AKIAAUDITOR"

    def __init__(self):
        import threading

        self.lock = threading.RLock()

    def expiry(self, access_key_id):
        return None

    def advance(self, now):
        pass  # nothing takes time here


@pytest.fixture
def faults():
    return Faults(AwsFault)


@pytest.fixture
def errors():
    """What moto raises next."""
    return []


@pytest.fixture
def gate(tmp_path, faults, errors):
    def moto(environ, start_response):
        if error := errors.pop() if errors else None:
            raise error
        return Response("<ok/>", 200)(environ, start_response)

    return MotoGate(
        moto, account=Account(), clock=CloudClock(), faults=faults, record=CallRecord(tmp_path / "calls.jsonl")
    )


@pytest.fixture
def ask(gate):
    """Ask for an action as a client that signs; gives the answer."""

    def request(action, key="AKIAOBS", **arguments):
        headers = {
            "Authorization": SIGNATURE.format(key=key),
            "X-Amz-Date": serialize_amz_date(CloudClock().now()),
        }
        return Client(gate).post("/", data={"Action": action, **arguments}, headers=headers)

    return request


@pytest.fixture
def calls(tmp_path):
    return lambda: [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]


def test_fault_without_nth_hits_every_call_of_its_action(faults, ask):
    faults.replace([{"action": "CreateVolume", "code": "InternalError", "status": 500}])
    assert [ask(action).status_code for action in ("CreateVolume", "CreateVpc", "CreateVolume")] == [500, 200, 500]


def test_fault_with_nth_hits_one_call(faults, ask):
    faults.replace([{"action": "CreateVolume", "nth": 2, "code": "InternalError", "status": 500}])
    assert [ask("CreateVolume").status_code for _ in range(3)] == [200, 500, 200]


def test_fault_answers_with_its_code_and_message(faults, ask):
    faults.replace([{"action": "CreateVolume", "code": "VolumeLimitExceeded", "message": "<too> many"}])
    answer = ask("CreateVolume")
    assert answer.status_code == 400
    assert "<Code>VolumeLimitExceeded</Code><Message>&lt;too&gt; many</Message>" in answer.text


def test_record_has_no_secrets_and_not_the_auditor(ask, calls):
    ask("AssumeRole", ExternalId="hidden", Policy="hidden", RoleSessionName="obs")
    ask("DescribeImages", key=Account.auditor_key_id)
    (call,) = calls()
    assert call["arguments"] == {"RoleSessionName": "obs"}
    assert call["key"] == "AKIA"
    assert (call["service"], call["region"], call["has_token"], call["status"]) == ("ec2", "us-east-1", False, 200)


def test_record_tells_the_code_of_a_refusal(faults, ask, calls):
    faults.replace([{"action": "CreateVolume", "code": "VolumeLimitExceeded"}])
    ask("CreateVolume")
    assert [(call["status"], call["code"]) for call in calls()] == [(400, "VolumeLimitExceeded")]


@pytest.mark.parametrize("header", ["", "Basic x", "AWS4-HMAC-SHA256 Credential=x"])
def test_request_that_is_not_signed_is_refused(gate, header):
    answer = Client(gate).post("/", data={"Action": "DescribeImages"}, headers={"Authorization": header})
    assert answer.status_code == 403
    assert "MissingAuthenticationToken" in answer.text


@pytest.mark.parametrize("date", ["", "yesterday", "20200101T000000Z"])
def test_request_without_a_present_date_is_refused(gate, date):
    headers = {"Authorization": SIGNATURE.format(key="AKIAOBS"), "X-Amz-Date": date}
    answer = Client(gate).post("/", data={"Action": "DescribeImages"}, headers=headers)
    assert "RequestExpired" in answer.text


@pytest.mark.parametrize(
    ("service", "error", "status", "code"),
    [
        ("ec2", NotImplementedError(), 400, "InvalidAction"),
        ("ec2", KeyError("x"), 500, "InternalError"),
        ("sts", NotImplementedError(), 400, "InvalidAction"),
        ("kms", NotImplementedError(), 400, "UnknownOperationException"),
        ("kms", KeyError("x"), 500, "KMSInternalException"),
    ],
)
def test_call_that_moto_can_not_answer_is_refused_in_the_form_of_the_service(
    gate, errors, service, error, status, code
):
    errors.append(error)
    headers = {
        "Authorization": SIGNATURE.format(key="AKIAOBS").replace("/ec2/", f"/{service}/"),
        "X-Amz-Date": serialize_amz_date(CloudClock().now()),
    }
    answer = Client(gate).post("/", data={"Action": "DoSomething"}, headers=headers)
    assert answer.status_code == status
    shown = json.loads(answer.text)["__type"] if service == "kms" else re.search("<Code>(.*?)</Code>", answer.text)[1]
    assert shown == code
    assert "DoSomething" in answer.text
