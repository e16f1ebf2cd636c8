"""boto3 clients that tell what they do, and whose errors are ours."""

import contextlib
import functools
import threading
import time
import types
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import boto3
import botocore.config
import botocore.credentials
import botocore.exceptions
import botocore.loaders
import botocore.session

from clouduploader.errors import CredentialsError, PlatformReplyError
from clouduploader.platform import Reporter
from clouduploader.platforms.ec2 import refusals
from clouduploader.platforms.ec2.sigv4 import Keys

CONFIG = botocore.config.Config(
    connect_timeout=20,  # the SDK's 60 s, four times over, is too long for a person who waits
    read_timeout=60,  # the SDK's own
    max_pool_connections=128,  # the most that Settings.connections can be; made as they are needed
    retries={"mode": "standard", "max_attempts": 4},  # the SDK's advice for new code, one more try
    user_agent_extra="clouduploader",
)

SERVICES = {
    **dict.fromkeys(("AssumeRole", "GetCallerIdentity"), "sts"),
    **dict.fromkeys(
        ("StartSnapshot", "PutSnapshotBlock", "CompleteSnapshot", "ListSnapshotBlocks", "GetSnapshotBlock"), "ebs"
    ),
    **dict.fromkeys(("DescribeKey", "ListAliases"), "kms"),
}
"""Whose operations they are; all others that we call are EC2's. The SDK's exceptions do not tell."""


class KeySource(Protocol):
    """Gives credentials that are valid; `credentials.Renewing`."""

    def __call__(self) -> Keys:
        """Those of now."""

    def refuse(self, keys: Keys) -> None:
        """AWS says that these have expired: from now on give others."""


MANY = ("PutSnapshotBlock", "GetSnapshotBlock")
"""Operations that are called for each block: one that goes well is not worth a line."""


def client(
    service: str,
    *,
    region: str,
    reporter: Reporter,
    keys: Keys | KeySource | None = None,
    session: botocore.session.Session | None = None,
    options: Mapping[str, Any] = types.MappingProxyType({}),
) -> Any:  # noqa: ANN401 boto3 makes its clients at run time
    """Make a client for an API of AWS.

    Args:
        service: For example "ec2".
        region: For example "eu-west-1".
        reporter: Told of each call if verbose.
        keys: Whose: some, or a source that is asked for each request; None for those of the session.
        session: Where credentials and settings come from; used for nothing else if `keys` are given.
        options: Of botocore's Config, in place of those of CONFIG.

    Raises:
        ClouduploaderError: The settings of the SDK are broken.
    """
    with translated(f"region {region}"):
        if session is None:
            session = botocore.session.Session()
        session.register_component("data_loader", _loader())
        credentials = None
        if keys is not None:
            credentials = _Credentials(_Fixed(keys) if isinstance(keys, Keys) else keys)
            resolver = botocore.credentials.CredentialResolver([_Provider(credentials)])
            session.register_component("credential_provider", resolver)
        config = CONFIG.merge(botocore.config.Config(**options))
        made = boto3.Session(botocore_session=session, region_name=region).client(service, config=config)
    if credentials:
        made.meta.events.register("needs-retry", credentials.needs_retry)
    _tell(made, reporter)
    return made


@functools.cache
def _loader() -> Any:  # noqa: ANN401 botocore has no types
    """The SDK's models, read once: that of EC2 takes a third of a second, and copies need a client a region."""
    return botocore.loaders.create_loader(botocore.session.Session().get_config_variable("data_path"))


class _Fixed:
    """A source of the same keys for ever."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def __call__(self) -> Keys:
        return self._keys

    def refuse(self, keys: Keys) -> None:
        """There are no others."""


class _Provider(botocore.credentials.CredentialProvider):  # type: ignore[misc] # botocore has no types
    """Gives a session our credentials."""

    METHOD = "clouduploader"

    def __init__(self, credentials: "_Credentials") -> None:
        super().__init__()
        self._credentials = credentials

    def load(self) -> "_Credentials":
        """Called once, when a client is made."""
        return self._credentials


class _Credentials(botocore.credentials.Credentials):  # type: ignore[misc] # botocore has no types
    """Credentials whose content is asked for at each signature, which is when the SDK freezes them."""

    def __init__(self, source: KeySource) -> None:
        found = source()
        super().__init__(found.access_key_id, found.secret_access_key, found.session_token)
        self._source = source
        self._used = threading.local()

    def get_frozen_credentials(self) -> botocore.credentials.ReadOnlyCredentials:
        """Give what a request is signed with.

        Raises:
            ClouduploaderError: New ones can't be had; it comes through the SDK as it is.
        """
        found = self._used.keys = self._source()
        return botocore.credentials.ReadOnlyCredentials(
            found.access_key_id, found.secret_access_key, found.session_token
        )

    def needs_retry(self, response: Any, attempts: int, **_rest: object) -> float | None:  # noqa: ANN401
        """Let the SDK send a request again, with others, when AWS says that its credentials have expired."""
        code = response[1].get("Error", {}).get("Code") if response else None
        if code not in refusals.EXPIRED or attempts > 1:
            return None
        self._source.refuse(self._used.keys)
        return 0.0


def _tell(made: Any, reporter: Reporter) -> None:  # noqa: ANN401 a client of boto3
    def before(context: dict[str, Any], **_rest: object) -> None:
        context["clouduploader_began"] = time.monotonic()

    def after(http_response: Any, parsed: Any, model: Any, context: dict[str, Any], **_rest: object) -> None:  # noqa: ANN401
        milliseconds = round((time.monotonic() - context["clouduploader_began"]) * 1000)
        request_id = parsed.get("ResponseMetadata", {}).get("RequestId", "unknown")
        code = parsed.get("Error", {}).get("Code")
        if model.name in MANY and not code:
            return
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
        service=SERVICES.get(exc.operation_name, "ec2"),
        operation=exc.operation_name,
        code=error.get("Code", "unknown"),
        message=error.get("Message") or "",
        reason=str(exc.response.get("Reason") or ""),
        status=metadata.get("HTTPStatusCode", 400),
        date=metadata.get("HTTPHeaders", {}).get("date", ""),
    )
