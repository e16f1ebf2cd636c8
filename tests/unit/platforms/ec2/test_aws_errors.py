import datetime
import email.utils

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.errors import (
    ClouduploaderError,
    ConfigError,
    CredentialsError,
    DeniedError,
    NetworkError,
    PlatformReplyError,
    TargetDataError,
    ThrottledError,
    TransientError,
)
from clouduploader.platforms.ec2 import aws_errors
from clouduploader.platforms.ec2.aws_errors import AwsError, NotTrustedError

NOW = datetime.datetime(2026, 11, 22, 17, 0, tzinfo=datetime.UTC)


def translate(service, operation, code, message="No.", **fields):
    refusal = AwsError(service=service, operation=operation, code=code, message=message, **fields)
    return aws_errors.translate(refusal, subject="region eu-west-1" if service == "ec2" else "role arn:x")


def shown(error):
    return f"{error.message} | {error.hint}"


@pytest.mark.parametrize(
    ("service", "operation", "code", "message", "kind", "words"),
    [
        ("sts", "AssumeRole", "AccessDenied", "User: arn:aws:iam::1:user/obs is not authorized",
         NotTrustedError, ("assume role arn:x", "arn:aws:iam::1:user/obs", "external id", "trust policy")),
        ("sts", "AssumeRole", "AccessDenied",
         "User: arn:aws:sts::1:assumed-role/obs/i-1 is not authorized to perform: sts:AssumeRole on resource: arn:x",
         NotTrustedError, ("must name arn:aws:sts::1:assumed-role/obs/i-1 or",)),
        ("sts", "AssumeRole", "AccessDenied",
         "User is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::2:role/theirs",
         NotTrustedError, ("must name this service's account",)),
        ("sts", "AssumeRole", "AccessDenied", "no names in here",
         NotTrustedError, ("this service's account", "external id")),
        ("sts", "AssumeRole", "AccessDeniedException", "", NotTrustedError, ("external id",)),
        ("sts", "AssumeRole", "RegionDisabledException", "", CredentialsError, ("not enabled", "sts_region")),
        ("sts", "AssumeRole", "InvalidClientTokenId", "", CredentialsError, ("access key", ".aws/credentials")),
        ("sts", "AssumeRole", "SignatureDoesNotMatch", "", CredentialsError, ("secret is wrong",)),
        ("sts", "AssumeRole", "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration",
         CredentialsError, ("sessions of that length", "session_seconds")),
        ("sts", "AssumeRole", "ValidationError", "the name is odd", CredentialsError, ("the name is odd",)),
        ("sts", "AssumeRole", "MalformedPolicyDocument", "Bad.", PlatformReplyError, ("AWS refused: Bad",)),
        ("sts", "AssumeRole", "Throttling", "", ThrottledError, ("fewer requests",)),
        ("ec2", "CreateVpc", "RequestLimitExceeded", "", ThrottledError, ("fewer requests",)),
        ("ec2", "CreateVpc", "RequestExpired", "", CredentialsError, ("expired", "session_seconds")),
        ("ec2", "CreateVpc", "ExpiredToken", "", CredentialsError, ("expired",)),
        ("ec2", "RunInstances", "UnauthorizedOperation", "You are not",
         DeniedError, ("ec2:RunInstances", "account show")),
        ("ec2", "CreateVpc", "AuthFailure", "", CredentialsError, ("region eu-west-1", "not enabled")),
        ("ec2", "CreateVpc", "OptInRequired", "", CredentialsError, ("region eu-west-1",)),
        ("ec2", "CreateVpc", "VpcLimitExceeded", "The maximum number of VPCs has been reached.",
         PlatformReplyError, ("quota", "number of VPCs has been reached (CreateVpc", "uploader-N")),
        ("ec2", "RunInstances", "InstanceLimitExceeded", "Too many", PlatformReplyError, ("quota", "Too many")),
        ("ec2", "RunInstances", "MaxSpotInstanceCountExceeded", "Too many", PlatformReplyError, ("quota",)),
        ("ec2", "RegisterImage", "InvalidAMIName.Duplicate", "", PlatformReplyError, ("image of that name already",)),
        ("ec2", "RunInstances", "InsufficientInstanceCapacity", "None left.", TransientError, ("None left (",)),
        ("ec2", "RunInstances", "InternalError", "", TransientError, ("Try again",)),
        ("ec2", "RunInstances", "InvalidAMIID.NotFound", "Gone.", ConfigError, ("helper AMI", ".ec2utils.conf")),
        ("ec2", "RunInstances", "InvalidAMIID.Malformed", "", ConfigError, ("helper AMI",)),
        ("ec2", "RunInstances", "InvalidSubnetID.NotFound", "", ConfigError, ("the subnet",)),
        ("ec2", "RunInstances", "Strange.Code", "Because.", PlatformReplyError, ("AWS refused: Because (",)),
    ],
)  # fmt: skip
def test_refusal_says_what_failed_and_what_to_do(service, operation, code, message, kind, words):
    error = translate(service, operation, code, message)
    assert type(error) is kind
    assert f"({operation}: {code})" in error.message
    for word in words:
        assert word in shown(error)


@pytest.mark.parametrize(
    ("operation", "code", "reason", "message", "kind", "words"),
    [
        ("StartSnapshot", "AccessDeniedException", "", "",
         DeniedError, ("may not call ebs:StartSnapshot", "account show")),
        ("StartSnapshot", "AccessDeniedException", "UNAUTHORIZED_ACCOUNT", "", DeniedError, ("ebs:StartSnapshot",)),
        ("StartSnapshot", "AccessDeniedException", "", "You are not authorized to perform: ec2:CreateTags on resource",
         DeniedError, ("may not call ec2:CreateTags",)),
        ("PutSnapshotBlock", "AccessDeniedException", "DEPENDENCY_ACCESS_DENIED", "The key.",
         DeniedError, ("KMS key of the snapshot can't be used: The key (", "KMS permissions")),
        ("StartSnapshot", "ValidationException", "INVALID_CUSTOMER_KEY", "", TargetDataError, ("KMS key", "region")),
        ("StartSnapshot", "ResourceNotFoundException", "DEPENDENCY_RESOURCE_NOT_FOUND", "",
         TargetDataError, ("KMS key",)),
        ("PutSnapshotBlock", "ThrottlingException", "", "", ThrottledError, ("fewer requests",)),
        ("PutSnapshotBlock", "RequestThrottledException", "RESOURCE_LEVEL_THROTTLE", "",
         ThrottledError, ("fewer requests",)),
        ("StartSnapshot", "ServiceQuotaExceededException", "", "100 pending.",
         PlatformReplyError, ("quota", "100 pending (", "pending snapshots")),
        ("StartSnapshot", "ConcurrentLimitExceededException", "", "", TransientError, ("under way already",)),
        ("StartSnapshot", "ConflictException", "", "", PlatformReplyError, ("same token", "cleanup")),
        ("PutSnapshotBlock", "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND", "",
         PlatformReplyError, ("the snapshot is gone", "pending_minutes")),
        ("StartSnapshot", "ValidationException", "INVALID_TAG", "a:b", TargetDataError, ("tags: a:b",)),
        ("PutSnapshotBlock", "ValidationException", "WRITE_REQUEST_TIMEOUT", "", TransientError, ("in time",)),
        ("CompleteSnapshot", "ValidationException", "INVALID_PARAMETER_VALUE", "The count.",
         PlatformReplyError, ("The count, INVALID_PARAMETER_VALUE (",)),
        ("CompleteSnapshot", "InternalServerException", "", "Oops", TransientError, ("AWS failed: Oops",)),
        ("PutSnapshotBlock", "ExpiredTokenException", "", "", CredentialsError, ("expired",)),
        ("PutSnapshotBlock", "UnrecognizedClientException", "", "", CredentialsError, ("not enabled",)),
        ("PutSnapshotBlock", "Strange", "", "Because.", PlatformReplyError, ("AWS refused: Because (",)),
    ],
)  # fmt: skip
def test_refusal_of_ebs_says_what_failed_and_what_to_do(operation, code, reason, message, kind, words):
    error = translate("ebs", operation, code, message, reason=reason)
    assert type(error) is kind
    assert f"({operation}: {code})" in error.message
    for word in words:
        assert word in shown(error)


@pytest.mark.parametrize("code", ["NotFoundException", "InvalidArnException", "ValidationException"])
def test_key_that_is_not_there_is_wrong_target_data(code):
    error = translate("kms", "DescribeKey", code, "Alias x is not found.")
    assert type(error) is TargetDataError
    assert "Alias x is not found (DescribeKey" in error.message


def test_every_error_of_the_models_of_ebs_is_known(sdk_session):
    model = sdk_session.get_service_model("ebs")
    operations = [model.operation_model(name) for name in model.operation_names]
    for code in {shape.name for operation in operations for shape in operation.error_shapes}:
        assert "AWS refused" not in translate("ebs", "X", code).message, code


def test_lack_of_rights_is_told_from_wrong_credentials():
    assert aws_errors.is_denied(translate("ebs", "StartSnapshot", "AccessDeniedException"))
    assert aws_errors.is_denied(translate("ec2", "RegisterImage", "UnauthorizedOperation"))
    assert not aws_errors.is_denied(translate("ebs", "StartSnapshot", "UnrecognizedClientException"))
    assert not aws_errors.is_denied(translate("ebs", "StartSnapshot", "ConflictException"))


@pytest.mark.parametrize("service", ["sts", "ec2", "ebs", "kms"])
@pytest.mark.parametrize("status", [500, 502, 503])
def test_failure_of_aws_can_be_tried_again(service, status):
    assert type(translate(service, "X", f"HTTP {status}", "Oops", status=status)) is TransientError


@pytest.mark.parametrize(
    ("minutes", "words"), [(7, "7 minutes ahead of Amazon's"), (-90, "90 minutes behind Amazon's")]
)
@pytest.mark.parametrize("service", ["sts", "ec2"])
@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "RequestExpired", "AuthFailure", "RequestTimeTooSkewed"])
def test_wrong_clock_is_told_where_it_is_the_cause(service, code, minutes, words):
    theirs = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=minutes)
    error = translate(service, "X", code, date=email.utils.format_datetime(theirs, usegmt=True))
    assert type(error) is CredentialsError
    assert words in error.message
    assert "chrony" in error.hint


@pytest.mark.parametrize(("code", "minutes"), [("SignatureDoesNotMatch", 4), ("VpcLimitExceeded", 60)])
def test_clock_is_not_blamed_for_what_it_did_not_cause(code, minutes):
    theirs = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=minutes)
    error = translate("ec2", "X", code, date=email.utils.format_datetime(theirs, usegmt=True))
    assert "clock" not in shown(error)


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Sun, 22 Nov 2026 16:59:00 GMT", 60),
        ("Sun, 22 Nov 2026 17:02:00 GMT", -120),
        ("Sun, 22 Nov 2026 18:00:00 +0100", 0),
        ("Sun, 22 Nov 2026 17:00:00 -0000", 0),
        ("Sun, 22 Nov 2026 17:00:00", 0),
    ],
)
def test_clock_skew_is_how_far_we_are_ahead(date, seconds):
    assert aws_errors.clock_skew(date, NOW) == datetime.timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "date", ["", "soon", "Sun, 99 Nov 2026 17:00:00 GMT", "Sun, 22 Nov 2026 17:00:00 +99999999999"]
)
def test_clock_skew_of_no_date_is_unknown(date):
    assert aws_errors.clock_skew(date, NOW) is None


dates = st.one_of(
    st.text(),
    st.from_regex(r"(Sun, )?[0-9]{1,3} (Nov|Jan|x) [0-9]{1,6} [0-9:.]{1,9} ([+-][0-9]{1,12}|GMT|EST|)", fullmatch=True),
)


@hypothesis.given(dates)
def test_clock_skew_never_fails_on_a_header(date):
    skew = aws_errors.clock_skew(date, NOW)
    assert skew is None or isinstance(skew, datetime.timedelta)


@hypothesis.given(st.sampled_from(("sts", "ec2")), st.text(), st.text(), st.text(), st.integers(300, 599), dates)
def test_any_refusal_becomes_an_error_of_ours(service, operation, code, message, status, date):
    error = translate(service, operation, code, message, status=status, date=date)
    assert isinstance(error, ClouduploaderError)
    assert code in error.message


@pytest.mark.parametrize(
    ("name", "meant"),
    [("eu-wst-1", "eu-west-1"), ("us-esat-1", "us-east-1"), ("eu-west1", "eu-west-1"), ("nowhere", None)],
)
def test_unknown_region_is_called_that_with_the_one_that_was_meant(name, meant):
    error = aws_errors.unknown_region(name, "nobody answers", ["us-east-1", "us-west-1", "eu-west-1", "ap-south-1"])
    assert type(error) is TargetDataError
    assert f"there is no region {name} that AWS's SDK knows" in error.message
    assert error.hint == f"Did you mean {meant}?" if meant else "newer botocore" in error.hint


def test_endpoint_that_does_not_answer_is_a_network_error():
    error = aws_errors.unreachable("https://sts.eu-west-1.amazonaws.com", "timed out")
    assert type(error) is NetworkError
    assert error.message == "https://sts.eu-west-1.amazonaws.com can't be reached: timed out"
    assert "proxy" in error.hint
