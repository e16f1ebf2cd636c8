import json

import pytest

from clouduploader.platforms.ec2 import rights
from clouduploader.platforms.ec2.ec2uploadimg import wrapper
from clouduploader.sandbox.aws.authorization import RESOURCES

REGIONS = [f"ap-southeast-{number}" for number in range(40)]
ALL = {"regions": ["x"], "share": ["x"], "deprecate_at": "x"}
IS_OURS, GETS_TAG = "aws:ResourceTag/clouduploader:key", "aws:RequestTag/clouduploader:key"


def statements(text):
    return json.loads(text)["Statement"]


def granted(document):
    """The actions of a policy, each with the keys of the conditions under which it is allowed."""
    found = {}
    for statement in document["Statement"]:
        keys = {key for names in statement.get("Condition", {}).values() for key in names}
        for action in statement["Action"]:
            found.setdefault(action, []).append(keys)
    return found


@pytest.mark.parametrize("method", rights.OF_METHOD)
@pytest.mark.parametrize("targetdata", [{}, ALL], ids=["least", "all"])
@pytest.mark.parametrize("number", range(len(REGIONS)))
def test_session_policy_always_fits(method, targetdata, number):
    made = rights.of_upload(targetdata, method, REGIONS[:number])
    assert len(made) <= 2048  # STS API, AssumeRole, Policy
    assert number > 10 or number == 0 or '"aws:RequestedRegion"' in made


@pytest.mark.parametrize(("key", "action"), rights.ASKED_FOR.items())
def test_session_may_do_only_what_the_target_data_ask_for(key, action):
    assert action in rights.of_upload({key: ["x"]}, "auto", [])
    assert action not in rights.of_upload({}, "auto", [])


@pytest.mark.parametrize("method", rights.OF_METHOD)
def test_session_of_an_upload_has_all_that_its_policies_have(method):
    allowed = {action for one in statements(rights.of_upload(ALL, method, [])) for action in one["Action"]}
    needed = {action for name in (*rights.OF_METHOD[method], "copies", "kms") for action in rights.actions(name)}
    assert {action for action in needed - allowed if not action.startswith("ec2:Describe")} == set()
    assert rights.LOOKS in allowed


@pytest.mark.parametrize("method", rights.OF_METHOD)
def test_session_of_one_method_has_no_rights_of_the_other(method):
    allowed = {action for one in statements(rights.of_upload(ALL, method, [])) for action in one["Action"]}
    assert ("ec2:RunInstances" in allowed) == (method != "ebs-direct")
    assert ("ebs:StartSnapshot" in allowed) == (method != "ec2uploadimg")


def test_clean_up_can_make_nothing():
    (statement,) = statements(rights.of_clean_up())
    assert {action.split(":")[1].rstrip("*")[:4] for action in statement["Action"]} == {
        *("Desc", "Dele", "Dere", "Deta", "Term")
    }


@pytest.mark.parametrize("name", rights.GRANTS)
def test_each_right_that_can_be_is_tied_to_our_tag(name):
    """What the reference knows no condition for is here, with the reason beside it in `rights`."""
    untied = {
        "ec2uploadimg": {"ec2:RunInstances", "ec2:CreateSecurityGroup", "ec2:AuthorizeSecurityGroupIngress"},
        "copies": {"ec2:CopyImage"},
    }.get(name, set())
    for action, conditions in granted(rights.permissions(name, "aws")).items():
        is_looking = action.startswith(("ec2:Describe", "ec2:Get"))
        if not action.startswith("kms:") and (not is_looking or action == "ec2:DescribeImageAttribute"):
            assert all(keys & {IS_OURS, GETS_TAG} for keys in conditions) == (action not in untied), action


def test_tags_are_given_only_to_what_is_made_or_ours():
    for name in ("ec2uploadimg", "ebs-direct"):
        made, ours = granted(rights.permissions(name, "aws"))["ec2:CreateTags"]
        assert (made, ours) == ({GETS_TAG, "ec2:CreateAction"}, {IS_OURS})


def test_snapshot_is_started_without_a_parent():
    (keys,) = granted(rights.permissions("ebs-direct", "aws"))["ebs:StartSnapshot"]
    assert keys == {GETS_TAG, "ebs:ParentSnapshot"}


def test_key_can_be_used_as_ebs_does():
    """What AWS lists: EBS User Guide, "Requirements for Amazon EBS encryption", "Control access to EBS direct APIs"."""
    listed = {f"kms:{name}" for name in ("CreateGrant", "Decrypt", "DescribeKey", "Encrypt", "GenerateDataKey")}
    listed |= {"kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncryptFrom", "kms:ReEncryptTo"}
    assert set(granted(rights.permissions("kms", "aws"))) == listed
    allowed = {action for one in statements(rights.of_upload({}, "ebs-direct", ["x"])) for action in one["Action"]}
    assert listed <= allowed


def test_copy_reads_any_image_and_our_snapshots_alone():
    assert granted(rights.permissions("copies", "aws"))["ec2:CopyImage"] == [{GETS_TAG}, set(), {IS_OURS}]


def test_boundary_has_each_right_with_its_conditions():
    bounds = granted(rights.boundary("aws"))
    for name in rights.GRANTS:
        for action, conditions in granted(rights.permissions(name, "aws")).items():
            assert all(keys in bounds[action] for keys in conditions)


def test_helper_tags_all_that_its_policy_wants_tagged():
    assert set(rights.HELPER_MAKERS) == set(wrapper.TAGGED)


def test_sandbox_asks_about_the_resources_of_each_call_that_is_tied_to_a_tag():
    tied = {
        action.removeprefix("ec2:")
        for name in rights.GRANTS
        for action, conditions in granted(rights.permissions(name, "aws")).items()
        if action.startswith("ec2:") and any(conditions)
    }
    assert tied <= set(RESOURCES)


def test_policy_of_the_service_names_the_roles():
    document = rights.service(["arn:aws:iam::*:role/clouduploader/*"])
    assume, look = document["Statement"]
    assert (assume["Action"], assume["Resource"]) == ("sts:AssumeRole", ["arn:aws:iam::*:role/clouduploader/*"])
    assert all(action.startswith("ec2:Describe") for action in look["Action"])
