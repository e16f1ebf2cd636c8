"""What AWS's refusals mean, in one line each, with what to do about it."""

import dataclasses
import datetime
import email.utils
import re

from clouduploader.errors import (
    ClouduploaderError,
    ConfigError,
    CredentialsError,
    DeniedError,
    NetworkError,
    PlatformReplyError,
    ThrottledError,
    TransientError,
)

MAX_SKEW = datetime.timedelta(minutes=5)  # AWS refuses signatures that are older (SigV4 guide)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refusal:
    """An answer of AWS that is not a success.

    Attributes:
        service: "sts" or "ec2".
        operation: For example AssumeRole.
        code: For example AccessDenied.
        message: Amazon's own words.
        status: Of HTTP.
        date: The header Date of the answer, or "".
    """

    service: str
    operation: str
    code: str
    message: str
    status: int = 400
    date: str = ""


_THROTTLED = {"Throttling", "ThrottlingException", "RequestLimitExceeded", "RequestThrottled", "SlowDown"}
_EXPIRED = {"RequestExpired", "ExpiredToken", "ExpiredTokenException"}
_SIGNATURE = {"SignatureDoesNotMatch", "InvalidSignatureException", "RequestTimeTooSkewed", "RequestExpired"}
_UNKNOWN_KEY = {"InvalidClientTokenId", "UnrecognizedClientException", "AuthFailure", "SignatureDoesNotMatch"}
_UNAUTHORIZED = {"UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "Client.UnauthorizedOperation"}
_REGION = {"OptInRequired", "RegionDisabledException", "PendingVerification"}
_NOT_THERE = {
    "InvalidAMIID.NotFound": ("the helper AMI", "Put one of that region into .ec2utils.conf"),
    "InvalidAMIID.Malformed": ("the helper AMI", "Correct its id in .ec2utils.conf"),
    "InvalidSubnetID.NotFound": ("the subnet", "Give a subnet of that account and region, or none"),
    "InvalidSubnetId.NotFound": ("the subnet", "Give a subnet of that account and region, or none"),
}


def clock_skew(date: str, now: datetime.datetime | None = None) -> datetime.timedelta | None:
    """How far this machine's clock is ahead of AWS's.

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
    if theirs.tzinfo is None:  # as for "-0000", RFC 5322: UTC, from somebody who won't tell his zone
        theirs = theirs.replace(tzinfo=datetime.UTC)
    return (now or datetime.datetime.now(datetime.UTC)) - theirs


def translate(refusal: Refusal, *, subject: str) -> ClouduploaderError:
    """Make an error of ours.

    Args:
        refusal: What AWS said.
        subject: What was asked for, for example "role arn:..." or "region eu-west-1".
    """
    code = refusal.code
    said = f"({refusal.operation}: {code})"
    skew = clock_skew(refusal.date)
    if skew is not None and abs(skew) > MAX_SKEW and code in _SIGNATURE | _EXPIRED | _UNKNOWN_KEY:
        direction = "ahead of" if skew > datetime.timedelta() else "behind"
        minutes = round(abs(skew).total_seconds() / 60)
        return CredentialsError(
            f"this machine's clock is {minutes} minutes {direction} Amazon's {said}",
            hint="Set the clock, for example with chrony: AWS refuses requests that are 5 minutes off.",
        )
    if code in _THROTTLED:
        return ThrottledError(f"AWS asks for fewer requests {said}", hint="Try again later.")
    if code in _EXPIRED and refusal.service == "sts":
        return CredentialsError(
            f"our own credentials have expired {said}", hint="Renew them in .aws/credentials in the home, or log in."
        )
    if code in _EXPIRED:
        return CredentialsError(
            f"the temporary credentials have expired {said}",
            hint="The upload took longer than they live: raise session_seconds in [ec2] of clouduploader.conf, "
            "and the role's MaxSessionDuration.",
        )
    if refusal.service == "sts":
        return _sts(refusal, subject, said)
    return _ec2(refusal, subject, said)


def _sts(refusal: Refusal, subject: str, said: str) -> ClouduploaderError:
    code = refusal.code
    if code in _UNAUTHORIZED:
        caller = re.search(r"arn:[\w-]+:(?:iam|sts)::\S+", refusal.message)
        principal = caller[0] if caller else "this service's account"
        return CredentialsError(
            f"AWS does not let us assume {subject} {said}",
            hint=f"The role's trust policy must name {principal} or its account, and the external id must be the "
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
    if code == "ValidationError":
        if "DurationSeconds" in refusal.message or "MaxSessionDuration" in refusal.message:
            return CredentialsError(
                f"{subject} does not allow sessions of that length {said}",
                hint="Lower session_seconds in [ec2] of clouduploader.conf, or raise the role's MaxSessionDuration.",
            )
        return CredentialsError(f"AWS finds something wrong in the request for {subject}: {refusal.message} {said}")
    return _other(refusal, said)


def _ec2(refusal: Refusal, subject: str, said: str) -> ClouduploaderError:
    code = refusal.code
    if code in _UNAUTHORIZED:
        return DeniedError(
            f"the role may not call ec2:{refusal.operation} {said}",
            hint="Attach the policy of the README, section 'The IAM role', to the role.",
        )
    if code in _REGION or code in _UNKNOWN_KEY:
        return CredentialsError(
            f"AWS does not accept the credentials in {subject} {said}",
            hint="Regions that are not enabled answer like this: enable it in the account, or choose another.",
        )
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


def _other(refusal: Refusal, said: str) -> ClouduploaderError:
    if refusal.status >= 500:
        return TransientError(f"AWS failed: {refusal.message.rstrip('.')} {said}", hint="Try again later.")
    return PlatformReplyError(f"AWS refused: {refusal.message.rstrip('.')} {said}")


def name_taken(which: str) -> PlatformReplyError:
    """Make the error for a name that another image of the account has.

    Args:
        which: That image, the name, or who said so.
    """
    return PlatformReplyError(
        f"there is an image of that name already ({which})", hint="Choose another name, or deregister that image."
    )


def unreachable(url: str, reason: str) -> NetworkError:
    """Make the error for an endpoint that does not answer."""
    return NetworkError(
        f"{url} can't be reached: {reason}", hint="Check the network, the proxy settings and the region's name."
    )
