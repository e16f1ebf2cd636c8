"""What IAM says to a call, by policies alone."""

import json

import pytest

from clouduploader.sandbox.aws.policies import PolicyError, Request, Rights, check, is_met

SNAPSHOT = "arn:aws:ec2:us-east-1::snapshot/snap-1"


def policy(*statements):
    return json.dumps(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*", **s} for s in statements]}
    )


def may(action, *policies, resource=SNAPSHOT, context=(), **kinds):
    return Rights(policies, **kinds).allow(Request(action, resource, dict(context)))


READ = policy({"Action": "ebs:GetSnapshotBlock"})
ALL = policy({"Action": "*"})
DENY = policy({"Effect": "Deny", "Action": "ebs:*"})


@pytest.mark.parametrize(
    ("policies", "kinds", "is_allowed"),
    [
        ([], {}, False),
        ([READ], {}, True),
        ([READ, DENY], {}, False),
        ([ALL], {"session": READ}, True),
        ([ALL], {"session": policy({"Action": "ec2:*"})}, False),
        ([ALL], {"session": DENY}, False),
        ([ALL], {"boundary": READ}, True),
        ([ALL], {"boundary": policy({"Action": "ec2:*"})}, False),
        ([ALL], {"boundary": READ, "session": READ}, True),
        ([ALL], {"boundary": READ, "session": policy({"Action": "ec2:*"})}, False),
        # neither gives a right that the role has not
        ([policy({"Action": "ec2:*"})], {"boundary": ALL, "session": ALL}, False),
    ],
)
def test_policy_boundary_and_session_must_all_allow(policies, kinds, is_allowed):
    assert may("ebs:GetSnapshotBlock", *policies, **kinds) is is_allowed


@pytest.mark.parametrize(
    ("statement", "is_allowed"),
    [
        ({"Action": ["ec2:x", "EBS:getsnapshotblock"]}, True),
        ({"Action": "ebs:Get*"}, True),
        ({"Action": "ebs:Get?napshotBlock"}, True),
        ({"Action": "ebs:GetSnapshot"}, False),
        ({"NotAction": "ec2:*"}, True),
        ({"NotAction": "ebs:*"}, False),
        ({"Action": "*", "Resource": "arn:aws:ec2:*:*:snapshot/*"}, True),
        ({"Action": "*", "Resource": "arn:aws:ec2:*:*:image/*"}, False),
        ({"Action": "*", "Resource": ["arn:aws:s3:::x", SNAPSHOT]}, True),
        ({"Action": "*", "Resource": SNAPSHOT.upper()}, False),
    ],
)
def test_action_and_resource_are_matched_as_iam_does(statement, is_allowed):
    assert may("ebs:GetSnapshotBlock", policy(statement)) is is_allowed


OURS = {"aws:resourcetag/clouduploader:key": "k"}


@pytest.mark.parametrize(
    ("condition", "context", "expected"),
    [
        ({"Null": {"aws:ResourceTag/clouduploader:key": "false"}}, OURS, True),
        ({"Null": {"aws:ResourceTag/clouduploader:key": False}}, OURS, True),
        ({"Null": {"aws:ResourceTag/clouduploader:key": "false"}}, {}, False),
        ({"Null": {"aws:ResourceTag/clouduploader:key": "true"}}, {}, True),
        ({"StringEquals": {"aws:ResourceTag/clouduploader:key": ["j", "k"]}}, OURS, True),
        ({"StringEquals": {"aws:ResourceTag/clouduploader:key": "j"}}, OURS, False),
        ({"StringEquals": {"aws:ResourceTag/clouduploader:key": "k"}}, {}, False),
        ({"StringEquals": {"aws:ResourceTag/clouduploader:key": "K"}}, OURS, False),
        ({"StringNotEquals": {"aws:ResourceTag/clouduploader:key": ["j", "k"]}}, OURS, False),
        ({"StringNotEquals": {"aws:ResourceTag/clouduploader:key": "k"}}, {}, True),
        ({"StringLike": {"aws:RequestedRegion": "eu-*"}}, {"aws:requestedregion": "eu-west-1"}, True),
        ({"StringNotLike": {"aws:RequestedRegion": "eu-*"}}, {"aws:requestedregion": "eu-west-1"}, False),
        ({"Bool": {"kms:GrantIsForAWSResource": "true"}}, {"kms:grantisforawsresource": "true"}, True),
        ({"Bool": {"kms:GrantIsForAWSResource": True}}, {"kms:grantisforawsresource": "true"}, True),
        ({"Bool": {"kms:GrantIsForAWSResource": "true"}}, {}, False),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}}, {"aws:tagkeys": ("a",)}, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}}, {"aws:tagkeys": ("a", "c")}, False),
        # the known trap ("Multivalued context keys"): no value is met by all
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}}, {}, True),
        ({"ForAnyValue:StringLike": {"aws:TagKeys": "a*"}}, {"aws:tagkeys": ("c", "ab")}, True),
        ({"ForAnyValue:StringLike": {"aws:TagKeys": "a*"}}, {}, False),
        # all operators and keys of a statement must be met
        ({"Null": {"a": "true", "b": "true"}}, {"b": "x"}, False),
        ({"Null": {"a": "true"}, "StringEquals": {"b": "x"}}, {"b": "x"}, True),
    ],
    ids=str,
)
def test_condition_is_met_as_iam_has_it(condition, context, expected):
    assert is_met(condition, context) is expected


@pytest.mark.parametrize(
    "document",
    [
        policy({"Action": "*", "Condition": {"StringEqualsIfExists": {"a": "b"}}}),
        policy({"Action": "*", "Condition": {"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}}),
        policy({"Action": "*", "Condition": {"ForSomeValues:StringEquals": {"a": "b"}}}),
        policy({"Action": "*", "Principal": "*"}),
        policy({"Effect": "Perhaps", "Action": "*"}),
        policy({}),
        policy({"Action": "*", "NotAction": "*"}),
        "{}",
        "[]",
        "no JSON",
    ],
    ids=str,
)
def test_what_is_not_known_is_refused_and_not_passed_over(document):
    with pytest.raises(PolicyError):
        check(document)
    with pytest.raises(PolicyError):
        may("ec2:x", ALL, document, context={"a": "b"})


def test_several_values_need_a_quantifier():
    with pytest.raises(PolicyError, match="several values"):
        is_met({"StringEquals": {"aws:TagKeys": "a"}}, {"aws:tagkeys": ("a", "b")})
