import ast
import json
import re
import shlex

import boto3
import botocore.session
import pytest
from fakes.aws_endpoint import identity

from clouduploader.errors import CredentialsError, DataError, NetworkError
from clouduploader.platforms.ec2 import accounts, rights, settings
from clouduploader.plugin import Level, PlatformContext

ARN = "arn:aws:iam::123456789012:role/obs"
VALUES = {"external_id": "sandboxExternalId0000001", "arn": ARN}
KEYS = "[default]\naws_access_key_id = AKIAHOME\naws_secret_access_key = SECRET/of+home\n"
TRUST = rights.trust(partition="aws", account_id="111122223333", external_id="x'y")
PERMISSIONS = {name: rights.permissions(name, "aws") for name in rights.GRANTS}
BOUNDARY = rights.boundary("aws")


@pytest.fixture
def make_accounts(tmp_path, make_endpoint, monkeypatch):
    """A factory of the accounts of a home with keys, and of an STS that gives these answers."""

    def make(*answers, conf=None, **changes):
        endpoint = make_endpoint(*answers)
        (tmp_path / ".aws").mkdir()
        (tmp_path / ".aws" / "credentials").write_text(KEYS)
        if conf is not None:
            (tmp_path / ".ec2utils.conf").write_text(conf)
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", endpoint.url)
        context = PlatformContext(home=tmp_path, settings={}, environment={"AWS_ENDPOINT_URL_STS": endpoint.url})
        return accounts.RoleAccounts(context, settings.Ec2Settings(**changes)), endpoint

    return make


def guide(kept, record, *, extras=(), values=VALUES):
    return kept.guide(values, extras=extras, reporter=record)


def test_external_ids_are_those_of_obs(make_accounts):
    kept, _ = make_accounts(None)
    made = {kept.new_values()["external_id"] for _ in range(200)}
    assert len(made) == 200
    assert all(re.fullmatch("[1-9A-HJ-NP-Za-km-z]{24}", external_id) for external_id in made)
    assert set("".join(made)) == set(accounts.BASE58)
    assert len(accounts.BASE58) == 58


def test_guide_tells_account_and_external_id(make_accounts, record):
    kept, endpoint = make_accounts(identity())
    found = guide(kept, record)
    assert found.facts == {"account_id": "111122223333", "external_id": VALUES["external_id"]}
    (statement,) = found.policies["trust"]["Statement"]
    assert statement["Principal"] == {"AWS": "arn:aws:iam::111122223333:root"}
    assert statement["Condition"] == {"StringEquals": {"sts:ExternalId": VALUES["external_id"]}}
    assert [request.form["Action"] for request in endpoint.requests] == ["GetCallerIdentity"]
    assert record.lines
    assert "SECRET" not in str(record.lines)


def test_guide_stays_in_the_partition_of_the_service(make_accounts, record):
    kept, _ = make_accounts(identity("arn:aws-cn:sts::111122223333:assumed-role/obs/i-0"), sts_region="cn-north-1")
    found = guide(kept, record)
    assert found.policies["trust"]["Statement"][0]["Principal"] == {"AWS": "arn:aws-cn:iam::111122223333:root"}
    page = "https://console.amazonaws.cn/cloudformation/home#/stacks/create"
    assert found.consoles == {"cloudformation": page}


def test_guide_names_no_console_that_is_not_known(make_accounts, record):
    kept, _ = make_accounts(identity("arn:aws-iso:iam::111122223333:user/obs"), sts_region="us-iso-east-1")
    assert guide(kept, record).consoles == {}


@pytest.mark.parametrize(
    ("method", "extras", "names"),
    [
        ("ec2uploadimg", (), ["ec2uploadimg"]),
        ("ebs-direct", (), ["ebs-direct"]),
        ("auto", (), ["ec2uploadimg", "ebs-direct"]),
        ("ebs-direct", ("kms", "copies", "kms"), ["ebs-direct", "copies", "kms"]),
        ("ec2uploadimg", ("cleanup",), ["ec2uploadimg", "cleanup"]),
    ],
)
def test_permissions_go_by_method_and_extras(make_accounts, record, method, extras, names):
    kept, _ = make_accounts(identity(), method=method)
    found = guide(kept, record, extras=extras)
    assert list(found.policies) == ["trust", *names]
    assert [found.policies[name] for name in names] == [PERMISSIONS[name] for name in names]
    assert all(found.scripts["commands"].count(f"--policy-name {name} ") == 1 for name in names)


def test_every_method_and_extra_has_permissions():
    assert set(rights.OF_METHOD) == set(settings.METHODS)
    used = {name for names in rights.OF_METHOD.values() for name in names}
    assert used | set(rights.EXTRAS) == {*rights.GRANTS, rights.BOUNDARY}


def test_boundary_is_printed_and_bounds_the_role_in_each_script(make_accounts, record):
    kept, _ = make_accounts(identity("arn:aws-us-gov:iam::111122223333:user/obs"))
    found = guide(kept, record, extras=("boundary",))
    assert found.policies["boundary"] == rights.boundary("aws-us-gov")
    assert found.policies["ec2uploadimg"] == rights.permissions("ec2uploadimg", "aws-us-gov")
    made = json.loads(found.scripts["cloudformation"])["Resources"]
    assert made["Role"]["Properties"]["PermissionsBoundary"] == {"Ref": "Boundary"}
    assert made["Boundary"]["Properties"]["PolicyDocument"] == found.policies["boundary"]
    first, second, *_ = found.scripts["commands"].splitlines()
    assert first.startswith("boundary=$(aws iam create-policy ")
    assert second.endswith(' --permissions-boundary "$boundary"')


def test_guide_without_an_answer_is_an_error(make_accounts, record, refused):
    kept, _ = make_accounts(refused("InvalidClientTokenId", status=403))
    with pytest.raises(CredentialsError, match="does not know our access key"):
        guide(kept, record)


@pytest.mark.parametrize(
    ("conf", "changes", "region"),
    [
        (None, {}, "us-east-1"),
        ("", {}, "us-east-1"),
        ("x", {}, "us-east-1"),
        ("[region-eu-west-1]\n[region-us-west-2]\n", {}, "eu-west-1"),
        ("[region-eu-west-1]\n", {"sts_region": "eu-central-1"}, "eu-central-1"),
    ],
)
def test_sts_is_asked_in_a_region_of_the_service(make_accounts, record, granted, conf, changes, region):
    kept, endpoint = make_accounts(identity(), granted, conf=conf, **changes)
    guide(kept, record)
    kept.verify(VALUES, reporter=record)
    scopes = re.findall(r"Credential=\w+/\d+/([\w-]+)/sts/", str([request.headers for request in endpoint.requests]))
    assert scopes == [region] * 4


# --- verify


def denied(refused):
    return refused("AccessDenied", status=403)


def levels(outcome):
    return [finding.level for finding in outcome.findings]


def test_verify_tries_the_right_one_none_and_a_wrong_one(make_accounts, record, granted, refused):
    kept, endpoint = make_accounts(granted, denied(refused), session_seconds=7200)
    outcome = kept.verify(VALUES, reporter=record)
    assert (outcome.is_usable, outcome.is_open) == (True, False)
    assert levels(outcome) == [Level.OK] * 3
    right, none, wrong = (request.form for request in endpoint.requests)
    assert (right["RoleArn"], right["ExternalId"], right["DurationSeconds"]) == (ARN, VALUES["external_id"], "7200")
    assert (none["RoleArn"], none["DurationSeconds"]) == (ARN, "900")
    assert "ExternalId" not in none
    assert re.fullmatch(r"\w{24}", wrong["ExternalId"])
    assert wrong["ExternalId"] != VALUES["external_id"]
    assert "SECRET/of+role" in record.secrets


@pytest.mark.parametrize(
    ("is_let_in", "is_usable", "is_open"),
    [
        ((True, True, True), True, True),
        ((True, True, False), True, True),
        ((True, False, True), True, True),
        ((False, True, False), False, True),
        ((False, False, False), False, False),
    ],
)
def test_verify_says_who_is_let_in(make_accounts, record, granted, refused, is_let_in, is_usable, is_open):
    kept, _ = make_accounts(*(granted if one else denied(refused) for one in is_let_in))
    outcome = kept.verify(VALUES, reporter=record)
    assert (outcome.is_usable, outcome.is_open) == (is_usable, is_open)
    first, *probes = levels(outcome)
    assert (first is Level.OK) == is_let_in[0]
    assert [level is Level.FAILURE for level in probes] == list(is_let_in[1:])
    for finding in outcome.findings[1:]:
        assert ("confused deputy" in finding.message) == (finding.level is Level.FAILURE)
        assert (finding.hint is not None) == (finding.level is Level.FAILURE)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_refusal_for_another_reason_is_no_finding(make_accounts, record, granted, refused, position):
    answers = [granted, denied(refused), denied(refused)]
    answers[position] = refused("ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration")
    kept, endpoint = make_accounts(*answers)
    with pytest.raises(CredentialsError, match="does not allow sessions of that length"):
        kept.verify(VALUES, reporter=record)
    assert len(endpoint.requests) == position + 1


@pytest.mark.usefixtures("hasty_sdk")
def test_verify_without_network_finds_nothing(make_accounts, record):
    kept, _ = make_accounts(None)
    with pytest.raises(NetworkError):
        kept.verify(VALUES, reporter=record)


@pytest.mark.parametrize("missing", ["arn", "external_id"])
def test_verify_needs_role_and_external_id(make_accounts, record, missing):
    kept, endpoint = make_accounts(None)
    values = {name: value for name, value in VALUES.items() if name != missing}
    with pytest.raises(DataError, match=f"the account has no {missing} yet") as caught:
        kept.verify(values, reporter=record)
    assert f"clouduploader account set USER {missing} VALUE" in caught.value.hint
    assert endpoint.requests == []


# --- the role


def made_role(iam, name):
    found = iam.get_role(RoleName=name)["Role"]
    names = iam.list_role_policies(RoleName=name)["PolicyNames"]
    documents = {one: iam.get_role_policy(RoleName=name, PolicyName=one)["PolicyDocument"] for one in names}
    assert found["Path"] == accounts.PATH
    return found["AssumeRolePolicyDocument"], documents


@pytest.fixture
def iam(ec2):
    """IAM of the same account."""
    return boto3.client("iam", region_name="us-east-1")


@pytest.mark.parametrize("boundary", [None, BOUNDARY])
def test_template_makes_the_role(iam, boundary):
    formation = boto3.client("cloudformation", region_name="us-east-1")
    template = accounts.template(TRUST, PERMISSIONS, boundary)
    formation.create_stack(StackName="s", TemplateBody=template, Capabilities=["CAPABILITY_IAM"])
    (output,) = formation.describe_stacks(StackName="s")["Stacks"][0]["Outputs"]
    assert output["OutputKey"] == "RoleArn"
    name = output["OutputValue"].rpartition("/")[2]
    trust, permissions = made_role(iam, name)
    assert trust == TRUST
    # moto keeps the policies of a template as Python writes them
    assert {key: ast.literal_eval(text) for key, text in permissions.items()} == PERMISSIONS
    assert ("PermissionsBoundary" in iam.get_role(RoleName=name)["Role"]) == (boundary is not None)


def run(iam, operations, line):
    """Do as a shell does with a line of the script; gives the answer."""
    program, service, command, *words = shlex.split(line)
    assert (program, service) == ("aws", "iam")
    shape = botocore.session.Session().get_service_model("iam").operation_model(operations[command]).input_shape
    members = {botocore.xform_name(name, "-"): name for name in shape.members}
    given = dict(zip((word.removeprefix("--") for word in words[::2]), words[1::2], strict=True))
    arguments = {members[name]: value for name, value in given.items() if name not in ("query", "output")}
    return given, getattr(iam, command.replace("-", "_"))(**arguments)


@pytest.mark.parametrize("boundary", [None, BOUNDARY])
def test_commands_are_those_of_the_api_and_make_the_role(iam, boundary):
    names = botocore.session.Session().get_service_model("iam").operation_names
    operations = {botocore.xform_name(name, "-"): name for name in names}
    lines = accounts.commands(TRUST, PERMISSIONS, boundary).splitlines()
    if boundary:
        created = lines.pop(0).removeprefix("boundary=$(").removesuffix(")")
        arn = run(iam, operations, created)[1]["Policy"]["Arn"]
        lines[0] = lines[0].replace("$boundary", arn)
    for line in lines:
        given, _ = run(iam, operations, line)
    assert given == {"role-name": accounts.NAME, "query": "Role.Arn", "output": "text"}
    assert made_role(iam, accounts.NAME) == (TRUST, PERMISSIONS)
    assert ("PermissionsBoundary" in iam.get_role(RoleName=accounts.NAME)["Role"]) == (boundary is not None)


def length(document):
    """Of a policy as IAM counts it: without white space."""
    return len(re.sub(r"\s", "", json.dumps(document)))


def test_all_permissions_fit_into_a_role():
    # "IAM and STS quotas": 10,240 characters of inline policies, 6,144 of a managed one, 2,048 of a trust policy
    assert sum(length(rights.permissions(name, "aws-us-gov")) for name in rights.GRANTS) <= 10240
    assert length(rights.boundary("aws-us-gov")) <= 6144
    assert len(json.dumps(rights.trust(partition="aws", account_id="1" * 12, external_id="x" * 1224))) <= 2048
