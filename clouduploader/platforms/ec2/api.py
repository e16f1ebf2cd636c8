"""boto3 clients that tell what they do, and whose errors are ours."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import boto3
import botocore.config
import botocore.exceptions
import botocore.session

from clouduploader.errors import CredentialsError, PlatformReplyError
from clouduploader.platform import Reporter
from clouduploader.platforms.ec2 import refusals
from clouduploader.platforms.ec2.sigv4 import Keys

CONFIG = botocore.config.Config(
    connect_timeout=20,  # the SDK's 60 s, four times over, is too long for a person who waits
    read_timeout=60,  # the SDK's own
    retries={"mode": "standard", "max_attempts": 4},  # the SDK's advice for new code, one more try
    user_agent_extra="clouduploader",
)


def client(
    service: str,
    *,
    region: str,
    reporter: Reporter,
    keys: Keys | None = None,
    session: botocore.session.Session | None = None,
) -> Any:  # noqa: ANN401 boto3 makes its clients at run time
    """Make a client for an API of AWS.

    Args:
        service: For example "ec2".
        region: For example "eu-west-1".
        reporter: Told of each call if verbose.
        keys: Whose; None for those of the session.
        session: Where credentials and settings come from.

    Raises:
        ClouduploaderError: The settings of the SDK are broken.
    """
    with translated(f"region {region}"):
        own = boto3.Session(botocore_session=session, region_name=region)
        made = own.client(
            service,
            config=CONFIG,
            aws_access_key_id=keys and keys.access_key_id,
            aws_secret_access_key=keys and keys.secret_access_key,
            aws_session_token=keys and keys.session_token,
        )
    _tell(made, reporter)
    return made


def _tell(made: Any, reporter: Reporter) -> None:  # noqa: ANN401 a client of boto3
    def before(context: dict[str, Any], **_rest: object) -> None:
        context["clouduploader_began"] = time.monotonic()

    def after(http_response: Any, parsed: Any, model: Any, context: dict[str, Any], **_rest: object) -> None:  # noqa: ANN401
        milliseconds = round((time.monotonic() - context["clouduploader_began"]) * 1000)
        request_id = parsed.get("ResponseMetadata", {}).get("RequestId", "unknown")
        code = parsed.get("Error", {}).get("Code")
        reporter.detail(
            f"{model.service_model.service_name} {model.name}: {http_response.status_code}"
            f"{f' {code}' if code else ''} in {milliseconds} ms, request id {request_id}"
        )

    made.meta.events.register("before-call", before)
    made.meta.events.register("after-call", after)


@contextlib.contextmanager
def translated(subject: str) -> Iterator[None]:
    """Turn the SDK's errors into ours.

    Args:
        subject: What is asked for, for the message.

    Raises:
        ClouduploaderError: See `refusals.translate`.
    """
    try:
        yield
    except botocore.exceptions.ClientError as exc:
        raise refusals.translate(refusal(exc), subject=subject) from exc
    except (
        botocore.exceptions.NoCredentialsError,
        botocore.exceptions.CredentialRetrievalError,
        botocore.exceptions.ProfileNotFound,
    ) as exc:
        raise CredentialsError(
            f"there are no AWS credentials to ask for {subject} with: {exc}",
            hint="Put the service's keys into .aws/credentials in the home of clouduploader.",
        ) from exc
    except (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError) as exc:
        raise refusals.unreachable(getattr(exc, "kwargs", {}).get("endpoint_url", "AWS"), str(exc)) from exc
    except botocore.exceptions.BotoCoreError as exc:
        raise PlatformReplyError(f"AWS's SDK gives up on {subject}: {exc}") from exc


def refusal(exc: botocore.exceptions.ClientError) -> refusals.Refusal:
    """What AWS said, out of the SDK's exception."""
    metadata = exc.response.get("ResponseMetadata", {})
    error = exc.response.get("Error", {})
    return refusals.Refusal(
        service="sts" if exc.operation_name in ("AssumeRole", "GetCallerIdentity") else "ec2",
        operation=exc.operation_name,
        code=error.get("Code", "unknown"),
        message=error.get("Message", ""),
        status=metadata.get("HTTPStatusCode", 400),
        date=metadata.get("HTTPHeaders", {}).get("date", ""),
    )
