import datetime

import botocore.session
import pytest

from clouduploader.platforms.ec2 import aws_answers

NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture(scope="module")
def models():
    """The SDK's model of each API that we call, by its name."""
    session = botocore.session.Session()
    return {name: session.get_service_model(name) for name in ("ec2", "ebs", "sts", "kms")}


def model_of(models, operation):
    return next(model for model in models.values() if operation in model.operation_names)


def test_what_is_read_is_in_the_models(models):
    for operation, paths in aws_answers.READ.items():
        for path in paths:
            shape = model_of(models, operation).operation_model(operation).output_shape
            for name in path.split("."):
                shape = shape.members[name.removesuffix("[]")]
                if name.endswith("[]"):
                    shape = shape.member


WHOLE = {
    "AssumeRole": {
        "Credentials": {"AccessKeyId": "A", "SecretAccessKey": "S", "SessionToken": "T", "Expiration": NOW},
    },
    "DescribeImages": {"Images": [{"ImageId": "ami-1", "State": "available"}]},
    "DescribeInstances": {"Reservations": [{"Instances": [{"InstanceId": "i-1", "State": {"Name": "running"}}]}]},
    "DescribeSnapshots": {"Snapshots": []},
    "ListSnapshotBlocks": {"Blocks": [{"BlockIndex": 0, "BlockToken": "t"}], "NextToken": "n"},
    "RegisterImage": {"ImageId": "ami-1"},
    "StartSnapshot": {"SnapshotId": "snap-1"},
    "CreateTags": {"ResponseMetadata": {"RequestId": "x"}},
}


@pytest.mark.parametrize("operation", WHOLE)
def test_whole_answer_is_taken(models, operation):
    aws_answers.check(operation, WHOLE[operation], model_of(models, operation))


@pytest.mark.parametrize(
    ("operation", "answer", "words"),
    [
        ("AssumeRole", {}, "no Credentials.AccessKeyId"),
        (
            "AssumeRole",
            {"Credentials": {"AccessKeyId": "A", "SecretAccessKey": "S", "SessionToken": ""}},
            "SessionToken",
        ),
        ("AssumeRole", {"Credentials": "x"}, "AssumeRole.Credentials is not of type dict"),
        (
            "AssumeRole",
            {"Credentials": {**WHOLE["AssumeRole"]["Credentials"], "Expiration": "soon"}},
            "Expiration is not of type datetime",
        ),
        ("DescribeImages", {}, "no Images"),
        ("DescribeImages", {"Images": None}, "no Images"),
        ("DescribeImages", {"Images": {}}, "Images is not of type list"),
        ("DescribeImages", {"Images": [{"State": "available"}]}, r"no Images\[\].ImageId"),
        ("DescribeImages", {"Images": ["ami-1"]}, r"Images\[\] is not of type dict"),
        (
            "DescribeImages",
            {"Images": [*WHOLE["DescribeImages"]["Images"], {"ImageId": "ami-2"}]},
            r"no Images\[\].State",
        ),
        ("DescribeImages", {"Images": [{"ImageId": "ami-1", "State": 3}]}, "State is not of type str"),
        ("DescribeInstances", {"Reservations": [{"Instances": [{"InstanceId": "i-1"}]}]}, "State.Name"),
        ("ListSnapshotBlocks", {"Blocks": [{"BlockIndex": "0", "BlockToken": "t"}]}, "BlockIndex is not of type int"),
        ("ListSnapshotBlocks", {"Blocks": [{"BlockIndex": True, "BlockToken": "t"}]}, "BlockIndex is not of type int"),
        ("RegisterImage", {"ImageId": ""}, "no ImageId"),
        ("StartSnapshot", {"SnapshotId": ["snap-1"]}, "SnapshotId is not of type str"),
        ("StartSnapshot", [], "StartSnapshot is not of type dict"),
        ("StartSnapshot", None, "StartSnapshot is not of type dict"),
    ],
)
def test_half_an_answer_is_refused_with_what_is_wrong(models, operation, answer, words):
    with pytest.raises(aws_answers.HalfAnswerError, match=words):
        aws_answers.check(operation, answer, model_of(models, operation))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"Code": "A", "Message": "b"}, {"Code": "A", "Message": "b"}),
        ({}, {"Code": "unknown", "Message": ""}),
        ({"Code": None, "Message": {"x": 1}}, {"Code": "unknown", "Message": "{'x': 1}"}),
        ("x", {"Code": "unknown", "Message": ""}),
        (None, {"Code": "unknown", "Message": ""}),
    ],
)
def test_refusal_always_has_a_code(error, expected):
    response = {"Error": error}
    aws_answers.complete_refusal(response)
    assert response["Error"] == expected
