"""A user's account from its first day: the service says what to do, the user does it, the service tries it."""

import json
import re
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.sandbox

EXECUTABLE = Path(sys.executable).with_name("clouduploader")
IAM_REGION = "us-east-1"


@pytest.fixture
def account(sandbox):
    """Run `clouduploader account` in the sandbox; gives exit code and answer."""

    def run(*words):
        done = sandbox.run([EXECUTABLE, "account", words[0], "--json", *words[1:]])
        answer = json.loads(done.stdout)
        assert answer["command"] == f"account {words[0]}"
        assert answer["exit_code"] == done.returncode
        return done.returncode, answer["data"] or answer["error"]

    return run


def change_trust(aws, role_name, document):
    change = {"RoleName": role_name, "PolicyDocument": json.dumps(document)}
    assert aws(("iam", "update_assume_role_policy", change), region=IAM_REGION) == [{}]


def test_account_is_made_followed_and_verified_and_a_role_open_to_anyone_is_found(sandbox, aws, account, run_aws):
    code, made = account("create", "tom")
    assert code == 0
    external_id = made["values"]["external_id"]
    assert re.fullmatch("[1-9A-HJ-NP-Za-km-z]{24}", external_id)
    code, shown = account("show", "tom", "--method", "ebs-direct")
    assert shown["facts"] == {"account_id": sandbox.description["account_id"], "external_id": external_id}
    role = run_aws(shown["scripts"]["commands"])["Role"]
    assert account("set", "tom", "arn", role["Arn"])[0] == 0

    code, outcome = account("verify", "tom")
    assert (code, outcome["is_usable"], outcome["is_open"]) == (0, True, False)
    assert [found["level"] for found in outcome["findings"]] == ["ok", "ok", "ok"]

    # what was shown is enough for an upload: nothing is refused
    targetdata = {**account("list")[1]["accounts"][0]["values"], "region": "us-east-1", "ami_name": "my-image"}
    (sandbox.spool / "1.data").write_text(json.dumps({**targetdata, "method": "ebs-direct"}))
    done = sandbox.run([EXECUTABLE, "tom", "ec2", *(sandbox.spool / f"1.{end}" for end in ("file", "data", "log"))])
    assert done.returncode == 0, done.stderr
    codes = {call["code"] for call in sandbox.calls() if call["service"] != "sts"}
    assert codes & {"UnauthorizedOperation", "AccessDeniedException"} == set()

    trust = shown["policies"]["trust"]
    statement = {key: value for key, value in trust["Statement"][0].items() if key != "Condition"}
    change_trust(aws, role["RoleName"], {**trust, "Statement": [statement]})
    code, outcome = account("verify", "tom")
    assert (code, outcome["is_usable"], outcome["is_open"]) == (79, True, True)
    assert [found["level"] for found in outcome["findings"]] == ["ok", "failure", "failure"]
    assert "open to anyone who uses this service: it lets us in without an external id" in str(outcome)
    assert "it lets us in with a wrong external id (confused deputy)" in str(outcome)

    # any external id is as bad as none, and one that demands none lets in all but the right one
    for wanted, levels in (("false", ["ok", "ok", "failure"]), ("true", ["failure", "failure", "ok"])):
        condition = {"Null": {"sts:ExternalId": wanted}}
        change_trust(aws, role["RoleName"], {**trust, "Statement": [{**statement, "Condition": condition}]})
        code, outcome = account("verify", "tom")
        assert (code, [found["level"] for found in outcome["findings"]]) == (79, levels)

    code, other = account("create", "anna")
    condition = {"StringEquals": {"sts:ExternalId": other["values"]["external_id"]}}
    change_trust(aws, role["RoleName"], {**trust, "Statement": [{**statement, "Condition": condition}]})
    code, outcome = account("verify", "tom")
    assert (code, outcome["is_usable"], outcome["is_open"]) == (77, False, False)
    assert [found["level"] for found in outcome["findings"]] == ["failure", "ok", "ok"]
    # anna may not have tom's role, whatever she says
    code, error = account("set", "anna", "arn", role["Arn"])
    assert (code, error["kind"]) == (65, "TakenValueError")


def test_verify_that_is_refused_for_another_reason_finds_nothing(sandbox, account):
    account("create", "tom")
    assert account("set", "tom", "arn", sandbox.description["role_arn"])[0] == 0
    assert account("set", "tom", "external_id", sandbox.description["external_id"])[0] == 0
    sandbox.fault("AssumeRole", code="RegionDisabledException", message="No.", status=403, after=1)
    code, error = account("verify", "tom")
    assert (code, error["kind"]) == (77, "CredentialsError")
    assert "STS of this region is not enabled" in error["message"]
    sandbox.faults()
    assert account("verify", "tom")[0] == 0
