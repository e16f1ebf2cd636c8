"""Translate AWS's refusals into errors of one line, with what to do about them."""

import datetime
import email.utils
import re
from collections.abc import Iterable

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
from clouduploader.util.frozen import frozen

AUTHORITIES_HINT = (
    "Whom to believe stands in AWS_CA_BUNDLE, in ca_bundle of .aws/config, in REQUESTS_CA_BUNDLE, or is for AWS's SDK "
    "to know; a proxy that looks into connections needs its own authority there."
)
MAX_SKEW = datetime.timedelta(minutes=5)  # AWS refuses signatures that are older (SigV4 guide)


@frozen(kw_only=True)
class AwsError:
    """An answer of AWS that is not a success.

    Attributes:
        service: "sts", "ec2", "ebs" or "kms".
        operation: For example AssumeRole.
        code: For example AccessDenied.
        message: Amazon's own words.
        reason: The field Reason of the EBS direct APIs, or "".
        status: Of HTTP.
        date: The header Date of the answer, or "".
    """

    service: str
    operation: str
    code: str
    message: str
    reason: str = ""
    status: int = 400
    date: str = ""


class NotTrustedError(CredentialsError):
    """The role does not let us in: no such role, not for us, or not with this external id. AWS does not say which."""


_THROTTLED = {
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "TooManyRequestsException",
}
EXPIRED = {"RequestExpired", "ExpiredToken", "ExpiredTokenException"}
_SIGNATURE = {"SignatureDoesNotMatch", "InvalidSignatureException", "RequestTimeTooSkewed", "RequestExpired"}
_UNKNOWN_KEY = {"InvalidClientTokenId", "UnrecognizedClientException", "AuthFailure", "SignatureDoesNotMatch"}
# Codes of a missing permission:
UNAUTHORIZED = {"UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "Client.UnauthorizedOperation"}
_CALLER = re.compile(r"User: (arn:[\w-]+:(?:iam|sts)::\S+) is not")  # the role's ARN may stand behind that
_FORBIDDEN_ACTION = re.compile(r"not authorized to perform: ([a-z0-9-]+:[A-Za-z]+)")
_KMS_REASONS = {
    "DEPENDENCY_ACCESS_DENIED": DeniedError,
    "INVALID_CUSTOMER_KEY": TargetDataError,
    "INVALID_GRANT_TOKEN": TargetDataError,
    "GRANT_NOT_FOUND": TargetDataError,
    "DEPENDENCY_RESOURCE_NOT_FOUND": TargetDataError,
}
"""Reasons of the EBS direct APIs that are about the KMS key of the snapshot (its model, botocore 1.44)."""
KEY_HINT = (
    "The key must be in the upload's region, and the role needs the KMS permissions that `clouduploader account show "
    "--with kms` prints."
)
_NO_KEY = {"NotFoundException", "InvalidArnException", "ValidationException"}  # KMS API, DescribeKey
_REGION = {"OptInRequired", "RegionDisabledException", "PendingVerification"}
NO_REGION = {"AuthFailure", "UnrecognizedClientException", "InvalidClientTokenId"}
"""Codes with which a region refuses accounts that are not of it; what plays AWS answers so for any name."""
_NOT_THERE = {
    "InvalidAMIID.NotFound": ("the helper AMI", "Put one of that region into .ec2utils.conf"),
    "InvalidAMIID.Malformed": ("the helper AMI", "Correct its id in .ec2utils.conf"),
    "InvalidSubnetID.NotFound": ("the subnet", "Give a subnet of that account and region, or none"),
    "InvalidSubnetId.NotFound": ("the subnet", "Give a subnet of that account and region, or none"),
}


def clock_skew(date: str, now: datetime.datetime | None = None) -> datetime.timedelta | None:
    """Measure how far this machine's clock is ahead of AWS's.

    Args:
        date: The header Date of an answer.
        now: For tests.

    Returns:
        Negative if our clock is behind; None if the header can't be read.
    """
    try:
        theirs = email.utils.parsedate_to_datetime(date)
    except ValueError:
        return None
    if theirs.tzinfo is None:  # as for "-0000", RFC 5322: UTC, without telling the zone
        theirs = theirs.replace(tzinfo=datetime.UTC)
    return (now or datetime.datetime.now(datetime.UTC)) - theirs


def translate(refusal: AwsError, *, subject: str) -> ClouduploaderError:
    """Make an error of ours.

    Args:
        refusal: What AWS said.
        subject: What was asked for, for example "role arn:..." or "region eu-west-1".
    """
    code = refusal.code
    said = f"({refusal.operation}: {code})"
    skew = clock_skew(refusal.date)
    if skew is not None and abs(skew) > MAX_SKEW and code in _SIGNATURE | EXPIRED | _UNKNOWN_KEY:
        direction = "ahead of" if skew > datetime.timedelta() else "behind"
        minutes = round(abs(skew).total_seconds() / 60)
        return CredentialsError(
            f"this machine's clock is {minutes} minutes {direction} Amazon's {said}",
            hint="Set the clock, for example with chrony: AWS refuses requests that are 5 minutes off.",
        )
    if code in _THROTTLED:
        return ThrottledError(f"AWS asks for fewer requests {said}", hint="Try again later.")
    if code in EXPIRED and refusal.service == "sts":
        return CredentialsError(
            f"our own credentials have expired {said}", hint="Renew them in .aws/credentials in the home, or log in."
        )
    if code in EXPIRED:
        return CredentialsError(
            f"the temporary credentials have expired {said}",
            hint="The upload took longer than they live: raise session_seconds in [ec2] of clouduploader.conf, "
            "and the role's MaxSessionDuration.",
        )
    if refusal.service == "sts":
        return _sts(refusal, subject, said)
    if refusal.service == "ebs":
        return _ebs(refusal, subject, said)
    if refusal.service == "kms" and code in _NO_KEY:
        return TargetDataError(f"there is no {subject}: {refusal.message.rstrip('.')} {said}", hint=KEY_HINT)
    return _ec2(refusal, subject, said)


def is_denied(error: ClouduploaderError) -> bool:
    """Tell whether a permission is missing, rather than the key or the clock wrong."""
    return isinstance(error, DeniedError) and not isinstance(error, CredentialsError)


def _sts(refusal: AwsError, subject: str, said: str) -> ClouduploaderError:
    code = refusal.code
    if code in UNAUTHORIZED:
        caller = _CALLER.search(refusal.message)
        principal = f"{caller[1]} or its account" if caller else "this service's account"
        return NotTrustedError(
            f"AWS does not let us assume {subject} {said}",
            hint=f"The role's trust policy must name {principal}, and the external id must be the "
            "very one in its condition; look for a typing error in the ARN too.",
        )
    if code in _REGION:
        return CredentialsError(
            f"STS of this region is not enabled for the account {said}",
            hint="Enable it under IAM, Account settings, or set sts_region in [ec2] of clouduploader.conf.",
        )
    if code in _UNKNOWN_KEY:
        return CredentialsError(
            f"AWS does not know our access key, or its secret is wrong {said}",
            hint="Check .aws/credentials in the home of clouduploader. A region that is not enabled in its account "
            "answers like this too: then enable it, or set sts_region in [ec2] of clouduploader.conf.",
        )
    if code == "PackedPolicyTooLarge":
        return TargetDataError(
            f"the policy of the session is too large for {subject} {said}", hint="Give fewer regions to copy to."
        )
    if code == "ValidationError":
        if "DurationSeconds" in refusal.message or "MaxSessionDuration" in refusal.message:
            return CredentialsError(
                f"{subject} does not allow sessions of that length {said}",
                hint="Lower session_seconds in [ec2] of clouduploader.conf, or raise the role's MaxSessionDuration.",
            )
        return CredentialsError(f"AWS finds something wrong in the request for {subject}: {refusal.message} {said}")
    return _other(refusal, said)


def _ec2(refusal: AwsError, subject: str, said: str) -> ClouduploaderError:
    code = refusal.code
    if error := _no_rights(refusal, subject, said):
        return error
    if code.endswith("LimitExceeded") or code in ("InstanceLimitExceeded", "MaxSpotInstanceCountExceeded"):
        return PlatformReplyError(
            f"a quota of the account is used up: {refusal.message.rstrip('.')} {said}",
            hint="Remove what is not needed any more (VPCs of dead uploads are called uploader-N), or have AWS "
            "raise the quota.",
        )
    if code == "InvalidAMIName.Duplicate":
        return name_taken(f"{refusal.operation}: {code}")
    if code in ("InsufficientInstanceCapacity", "Unavailable", "InternalError", "ServiceUnavailable"):
        return TransientError(f"AWS can't serve this now: {refusal.message.rstrip('.')} {said}", hint="Try again.")
    if code in _NOT_THERE:
        what, hint = _NOT_THERE[code]
        return ConfigError(f"{what} does not exist in {subject}: {refusal.message.rstrip('.')} {said}", hint=f"{hint}.")
    return _other(refusal, said)


def _no_rights(refusal: AwsError, subject: str, said: str) -> DeniedError | None:
    if refusal.code in UNAUTHORIZED:
        named = _FORBIDDEN_ACTION.search(refusal.message)  # with tags it may be ec2:CreateTags
        action = named[1] if named else f"{refusal.service}:{refusal.operation}"
        return DeniedError(
            f"the role may not call {action} {said}",
            hint="Attach the policy that `clouduploader account show` prints to the role.",
        )
    if refusal.code in _REGION | _UNKNOWN_KEY:
        return CredentialsError(
            f"AWS does not accept the credentials in {subject} {said}",
            hint="Regions that are not enabled answer like this: enable it in the account, or choose another.",
        )
    return None


def _ebs(refusal: AwsError, subject: str, said: str) -> ClouduploaderError:
    code, words = refusal.code, refusal.message.rstrip(".")
    if refusal.reason in _KMS_REASONS:
        return _KMS_REASONS[refusal.reason](f"the KMS key of the snapshot can't be used: {words} {said}", hint=KEY_HINT)
    if error := _no_rights(refusal, subject, said):
        return error
    match code:
        case "ServiceQuotaExceededException":
            return PlatformReplyError(
                f"a quota of the account is used up: {words} {said}",
                hint="Complete or delete pending snapshots, or have AWS raise the quota of the EBS direct APIs.",
            )
        case "ConcurrentLimitExceededException":
            return TransientError(f"the same request is under way already: {words} {said}", hint="Try again later.")
        case "ConflictException":
            return PlatformReplyError(
                f"a request of the same token asked for another snapshot: {words} {said}",
                hint="Remove what the earlier try left with `clouduploader cleanup`, and try again.",
            )
        case "ResourceNotFoundException":
            return PlatformReplyError(
                f"the snapshot is gone: {words} {said}",
                hint="AWS removes an unfinished snapshot that gets no blocks for pending_minutes, in [ec2] of "
                "clouduploader.conf. Start the upload again.",
            )
        case "ValidationException" if refusal.reason == "INVALID_TAG":
            return TargetDataError(f"tags: {words} {said}", hint="Correct the tags.")
        case "ValidationException" if refusal.reason == "WRITE_REQUEST_TIMEOUT":
            return TransientError(f"a block did not arrive in time: {words} {said}", hint="Try again.")
        case "ValidationException":
            reason = f", {refusal.reason}" if refusal.reason else ""
            return PlatformReplyError(f"AWS finds something wrong in the request: {words}{reason} {said}")
        case "InternalServerException":
            return TransientError(f"AWS failed: {words} {said}", hint="Try again later.")
    return _other(refusal, said)


def _other(refusal: AwsError, said: str) -> ClouduploaderError:
    if refusal.status >= 500:
        return TransientError(f"AWS failed: {refusal.message.rstrip('.')} {said}", hint="Try again later.")
    return PlatformReplyError(f"AWS refused: {refusal.message.rstrip('.')} {said}")


def name_taken(which: str, difference: str | None = None) -> PlatformReplyError:
    """Make the error for a name that another image of the account has.

    Args:
        which: That image, or the call that said so.
        difference: In what it is another than ours, if that is known.
    """
    more = f": {difference}" if difference else ""
    return PlatformReplyError(
        f"there is an image of that name already ({which}){more}",
        hint="Choose another name, or deregister that image.",
    )


def untrusted(url: str, exc: Exception) -> ConfigError:
    """Make the error for a certificate that is not believed, by OpenSSL or for its host name by urllib3."""
    reason = getattr(exc, "verify_message", None) or exc
    return ConfigError(f"the certificate of {url} is not to be trusted: {reason}", hint=AUTHORITIES_HINT)


def no_authorities(path: str, exc: OSError) -> ConfigError:
    """Make the error for a file with the certificates of authorities that can't be used."""
    return ConfigError(
        f"the certificates of the authorities can't be read: {path}: {exc.strerror or exc}", hint=AUTHORITIES_HINT
    )


def unknown_region(name: str, why: str, known: Iterable[str]) -> TargetDataError:
    """Make the error for a region that AWS's SDK does not know, and that does not work.

    Args:
        name: Of the region.
        why: In what it does not work.
        known: The names of those that there are.
    """
    import difflib

    near = difflib.get_close_matches(name, sorted(known))
    near.sort(key=lambda other: sorted(other) != sorted(name))  # letters that changed places before others
    return TargetDataError(
        f"there is no region {name} that AWS's SDK knows, and {why}",
        hint=f"Did you mean {near[0]}?" if near else "Look up its name, or get a newer botocore if it is a new one.",
    )


def unreachable(url: str, reason: str) -> NetworkError:
    """Make the error for an endpoint that does not answer."""
    return NetworkError(
        f"{url} can't be reached: {reason}", hint="Check the network, the proxy settings and the region's name."
    )
