"""The SDK's clients: the one border that all calls of AWS's APIs cross, but for PutSnapshotBlock (`ebs`).

A call returns an answer that has all that we read, or raises an error that `translated` knows: errors of the SDK, of
urllib3 and of parsers are caught here, each exchange ends in time, and each call is reported. Endpoint, proxy and
certificate authorities are for the SDK to choose; see `route`.
"""

import contextlib
import functools
import re
import ssl
import threading
import time
import types
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import botocore.config
import botocore.credentials
import botocore.exceptions
import botocore.httpsession
import botocore.loaders
import botocore.session

from clouduploader.errors import ClouduploaderError, ConfigError, CredentialsError, PlatformReplyError, TransientError
from clouduploader.platforms.ec2 import aws_errors, endpoint, exchange
from clouduploader.platforms.ec2.sigv4 import AccessKeys
from clouduploader.plugin import Reporter
from clouduploader.plugin.resources import is_refusal
from clouduploader.util.cancel import Cancel

TRIES = 5  # of a call; the SDK's own are 3
CONFIG = botocore.config.Config(
    connect_timeout=20,  # the SDK's 60 s, four times over, is too long for a person who waits
    read_timeout=60,  # the SDK's own
    max_pool_connections=128,  # the most that Settings.connections can be; made as they are needed
    retries={"mode": "standard", "total_max_attempts": TRIES},
    user_agent_extra="clouduploader",
)
MAX_WORDS = 500  # characters of what a library says
CREDENTIALS_HINT = "Put the service's keys into .aws/credentials in the home of clouduploader."
_USER_OF_URL = re.compile(r"(?<=://)[^/\s]*@")  # and his password, as a proxy may have
NOT_YET = (".NotFound", "InvalidAMIID.Unavailable", "IncorrectState")
"""How the codes end by which one of EC2's servers denies what another has shown already."""
PAUSE_SECONDS = 1.0  # before a call whose answer was malformed is made again; doubled from try to try

SERVICES = {
    **dict.fromkeys(("AssumeRole", "GetCallerIdentity"), "sts"),
    **dict.fromkeys(
        ("StartSnapshot", "PutSnapshotBlock", "CompleteSnapshot", "ListSnapshotBlocks", "GetSnapshotBlock"), "ebs"
    ),
    **dict.fromkeys(("DescribeKey", "ListAliases"), "kms"),
}
"""Whose operations they are; all others that we call are EC2's. The SDK's exceptions do not tell."""

SETTINGS_ERRORS = (
    botocore.exceptions.ProfileNotFound,
    botocore.exceptions.ConfigParseError,
    botocore.exceptions.ConfigNotFound,
    botocore.exceptions.InvalidConfigError,
    botocore.exceptions.InvalidDefaultsMode,
    botocore.exceptions.InvalidEndpointConfigurationError,
    botocore.exceptions.InvalidIMDSEndpointError,
    botocore.exceptions.InvalidIMDSEndpointModeError,
    botocore.exceptions.InvalidProxiesConfigError,
    botocore.exceptions.InvalidRegionError,
    botocore.exceptions.InvalidRetryConfigurationError,
    botocore.exceptions.BaseEndpointResolverError,
    botocore.exceptions.EndpointProviderError,
    botocore.exceptions.UnknownRegionError,
)
"""What the SDK raises for settings that it can't go by."""
MALFORMED_ERRORS = (
    botocore.exceptions.PaginationError,
    botocore.exceptions.IncompleteReadError,
    botocore.exceptions.ResponseStreamingError,
    botocore.exceptions.ChecksumError,
    botocore.exceptions.FlexibleChecksumError,
)
"""What it raises for an answer that no server of that API gives."""
UNREACHABLE_ERRORS = (
    botocore.exceptions.EndpointConnectionError,
    botocore.exceptions.ConnectTimeoutError,
    botocore.exceptions.ProxyConnectionError,
)
"""What it raises where an endpoint may not exist."""
CREDENTIAL_ERRORS = (
    botocore.exceptions.NoCredentialsError,
    botocore.exceptions.PartialCredentialsError,
    botocore.exceptions.CredentialRetrievalError,
)


_SNAPSHOT = "snap-00000000000000000"


class UnreadableAnswerError(exchange.MalformedAnswerError):
    """A whole answer that is not what its API gives."""


class CredentialSource(Protocol):
    """Gives valid credentials; `auth.RenewedCredentials` is one."""

    def __call__(self) -> AccessKeys:
        """Return credentials that are valid now."""

    def refuse(self, keys: AccessKeys) -> None:
        """Note that AWS calls these expired: return others from now on."""


MANY = ("PutSnapshotBlock", "GetSnapshotBlock")
"""Operations that are called for each block: one that goes well is not worth a line."""


def client(
    service: str,
    *,
    region: str,
    reporter: Reporter,
    keys: AccessKeys | CredentialSource,
    session: botocore.session.Session,
    options: Mapping[str, Any] = types.MappingProxyType({}),
    cancel: Cancel | None = None,
) -> Any:
    """Make a client for an API of AWS.

    Args:
        service: For example "ec2".
        region: For example "eu-west-1".
        reporter: Told of each call if verbose.
        keys: Whose: some, or a source that is asked for each request.
        session: Where settings come from. With a source of keys it becomes a part of the client, and makes no others.
        options: Of botocore's Config, in place of those of CONFIG.
        cancel: Once it is requested, no exchange takes longer than seconds.

    Raises:
        ConfigError: The settings of the SDK are broken.
    """
    session.register("creating-client-class", _add_border, unique_id="clouduploader")
    given: dict[str, Any] = {}
    renewed = None
    if isinstance(keys, AccessKeys):
        given["aws_access_key_id"] = keys.access_key_id
        given["aws_secret_access_key"] = keys.secret_access_key
        given["aws_session_token"] = keys.session_token
    else:
        renewed = _Credentials(keys, TRIES)
        resolver = botocore.credentials.CredentialResolver([_Provider(renewed)])
        session.register_component("credential_provider", resolver)
    with _settings():
        session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
        config = CONFIG.merge(botocore.config.Config(**options))
        made = session.create_client(service, region_name=region, config=config, **given)
        if "@" in urllib.parse.urlsplit(made.meta.endpoint_url).netloc:
            raise ConfigError("the endpoint of AWS has a user in its URL, and AWS takes none")
    if renewed:
        made.meta.events.register("needs-retry", renewed.needs_retry)
    made._endpoint.http_session = exchange.Exchange(made._endpoint.http_session, cancel)
    _tell(made, reporter)
    return made


def route(ebs: Any) -> endpoint.ProxyRoute:
    """Tell how the SDK reaches the EBS direct API, for PutSnapshotBlock of our own.

    Args:
        ebs: A client of it. What it is asked for is signed and goes nowhere: `meta.endpoint_url` is not where the
            SDK sends its requests in each partition.

    Raises:
        ConfigError: The endpoint is none that can be reached.
        ClouduploaderError: See `CredentialSource`.
    """
    with _settings():
        signed = ebs.generate_presigned_url("list_snapshot_blocks", Params={"SnapshotId": _SNAPSHOT})
    url, _, rest = signed.partition(f"/snapshots/{_SNAPSHOT}/")
    (credential,) = urllib.parse.parse_qs(urllib.parse.urlsplit(rest).query)["X-Amz-Credential"]
    sdk = ebs._endpoint.http_session.sdk
    return endpoint.ProxyRoute(
        place=endpoint.parse(url, origin="the endpoint of the EBS direct API"),
        region=credential.split("/")[2],
        authorities=botocore.httpsession.get_cert_path(sdk._verify),
        proxy=sdk._proxy_config.proxy_url_for(url),
    )


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Surround what the SDK does with its settings only; what it raises there is about them."""
    try:
        yield
    except ClouduploaderError:
        raise
    except Exception as exc:  # noqa: BLE001 each of its settings has errors of its own, those of Python among them
        raise ConfigError(
            f"the settings of AWS's SDK can't be used: {words(exc)}",
            hint="They are in the variables AWS_* of the environment, and in .aws/config.",
        ) from None


def _add_border(base_classes: list[type], **_rest: object) -> None:
    base_classes.insert(0, _Border)


class _Border:
    """A base class of the clients, in front of botocore's own: a call raises no foreign error."""

    def _make_api_call(self, operation_name: str, api_params: Mapping[str, Any]) -> Any:
        """Make a call, and once more if its answer is malformed, as the SDK does where one did not come.

        Raises:
            botocore.exceptions.ClientError: AWS has refused; there is an error code.
            botocore.exceptions.BotoCoreError: There was no answer, or none that can be understood.
            ClouduploaderError: The credentials can't be had, the authority is not believed, or the time is over.
        """
        tries = self.meta.config.retries["total_max_attempts"]  # type: ignore[attr-defined]
        for number in range(1, tries + 1):
            try:
                return self._checked(operation_name, api_params)
            except UnreadableAnswerError:
                if number == tries:
                    raise
                time.sleep(PAUSE_SECONDS * 2 ** (number - 1))
            except botocore.exceptions.ClientError as exc:
                metadata = exc.response.setdefault("ResponseMetadata", {})
                metadata["RetryAttempts"] = metadata.get("RetryAttempts", 0) + number - 1
                raise
        raise AssertionError("unreachable: the last try returns or raises")

    def _checked(self, operation_name: str, api_params: Mapping[str, Any]) -> Any:
        url = self.meta.endpoint_url  # type: ignore[attr-defined]
        try:
            answer = super()._make_api_call(operation_name, api_params)  # type: ignore[misc]
            exchange.check_answer(operation_name, answer, self.meta.service_model)  # type: ignore[attr-defined]
        except botocore.exceptions.ClientError as exc:
            exchange.complete_refusal(exc.response)
            if not exchange.is_of_aws(exc.response):
                raise UnreadableAnswerError(endpoint_url=url, error=f"a refusal without a code of AWS: {exc}") from None
            if exc.response["Error"]["Code"] in aws_errors.NO_REGION:
                _check_region(self.meta.region_name, "our credentials are none there")  # type: ignore[attr-defined]
            raise
        except UNREACHABLE_ERRORS:
            _check_region(self.meta.region_name, "no endpoint answers for it")  # type: ignore[attr-defined]
            raise
        except MALFORMED_ERRORS as exc:
            raise UnreadableAnswerError(endpoint_url=url, error=words(exc)) from None
        except (botocore.exceptions.BotoCoreError, ClouduploaderError):
            raise
        except Exception as exc:  # noqa: BLE001 what parsers of XML, JSON, numbers and times raise has no common base
            raise UnreadableAnswerError(endpoint_url=url, error=words(exc)) from None
        return answer


def _check_region(name: str, why: str) -> None:
    """Blame the name of a region in which nothing works, if the SDK does not know it: it may be a new one.

    Args:
        name: Of the region.
        why: In what it does not work.

    Raises:
        TargetDataError: It does not.
    """
    partitions = botocore.loaders.create_loader().load_data("endpoints")["partitions"]
    known = {region for partition in partitions for region in partition["regions"]}
    if name not in known:
        raise aws_errors.unknown_region(name, why, known) from None


class _Loader(botocore.loaders.Loader):  # type: ignore[misc] # botocore has no types
    """Finds the SDK's models, without a list of all the services that it has: that takes a thousand looks at disk."""

    def list_available_services(self, _type_name: str) -> list[str]:
        """List the services that we call."""
        return ["ec2", *sorted(set(SERVICES.values()))]


@functools.cache
def _loader(data_path: str | None) -> _Loader:
    """Return the loader of the SDK's models, which keeps them.

    That of EC2 takes a third of a second to read, and copies need a client for each region.
    """
    theirs = botocore.loaders.create_loader(data_path)
    return _Loader(extra_search_paths=theirs.search_paths, include_default_search_paths=False)


class _Provider(botocore.credentials.CredentialProvider):  # type: ignore[misc] # botocore has no types
    """Gives a session our credentials."""

    METHOD = "clouduploader"

    def __init__(self, credentials: "_Credentials") -> None:
        super().__init__()
        self._credentials = credentials

    def load(self) -> "_Credentials":
        """Return the credentials; called once, when a client is made."""
        return self._credentials


class _Credentials(botocore.credentials.Credentials):  # type: ignore[misc] # botocore has no types
    """Credentials whose content is asked for at each signature, which is when the SDK freezes them."""

    def __init__(self, source: CredentialSource, tries: int) -> None:
        found = source()
        super().__init__(found.access_key_id, found.secret_access_key, found.session_token)
        self._source = source
        self._tries = tries
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

    def needs_retry(self, response: Any, attempts: int, **_rest: object) -> float | None:
        """Let the SDK send a request again, with others, when AWS says that its credentials have expired.

        Raises:
            ClouduploaderError: As `get_frozen_credentials`.
        """
        code = response[1].get("Error", {}).get("Code") if response else None
        if code not in aws_errors.EXPIRED or attempts >= self._tries:
            return None
        self._source.refuse(self._used.keys)
        return 0.0 if self._source() != self._used.keys else None


def _tell(made: Any, reporter: Reporter) -> None:
    def before(context: dict[str, Any], **_rest: object) -> None:
        context["clouduploader_began"] = time.monotonic()

    def after(http_response: Any, parsed: Any, model: Any, context: dict[str, Any], **_rest: object) -> None:
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
    """Turn the SDK's errors into ours, where there is no context whose `translated` does it.

    Args:
        subject: What is asked for, for the message.

    Raises:
        ClouduploaderError: See `translate`.
    """
    try:
        yield
    except Exception as exc:
        ours = translate(exc, subject)
        if ours is None:
            raise
        raise ours from exc


def translate(exc: Exception, subject: str) -> ClouduploaderError | None:
    """Turn an error of the SDK into one of ours; see `Platform.translate`, and `aws_errors.translate` for refusals."""
    if isinstance(exc, botocore.exceptions.ClientError):
        return aws_errors.translate(refusal(exc), subject=subject)
    if not isinstance(exc, botocore.exceptions.BotoCoreError):
        return None
    url = exc.kwargs.get("endpoint_url", "AWS")
    if isinstance(exc, (exchange.MalformedAnswerError, *MALFORMED_ERRORS)):
        return TransientError(
            f"the answer about {subject} makes no sense: {words(exc)}",
            hint="Try again later; if it stays so, look at what stands between this machine and AWS.",
        )
    if isinstance(exc, CREDENTIAL_ERRORS):
        return CredentialsError(f"the AWS credentials can't be had: {words(exc)}", hint=CREDENTIALS_HINT)
    if isinstance(exc, botocore.exceptions.HTTPClientError | botocore.exceptions.ConnectionError):
        return aws_errors.unreachable(url, words(exc))
    if isinstance(exc, SETTINGS_ERRORS):
        return ConfigError(f"the settings of AWS's SDK can't be used: {words(exc)}")
    return PlatformReplyError(f"AWS's SDK gives up on {subject}: {words(exc)}")


def may_heal(exc: BaseException) -> bool:
    """Tell whether the SDK's chain of credentials, which raised this, may succeed in a while."""
    if isinstance(exc, botocore.exceptions.ClientError):
        exchange.complete_refusal(exc.response)
        told = aws_errors.translate(refusal(exc), subject="credentials")
        return isinstance(told, TransientError) or not exchange.is_of_aws(exc.response)
    if isinstance(exc, botocore.exceptions.SSLError):
        cause = exchange.cause_of(exc)  # "SSL" is the connection; the others are the file of the authorities
        is_of_connection = isinstance(cause, ssl.SSLError) and cause.library == "SSL"
        return is_of_connection and not isinstance(cause, exchange.UNTRUSTED_ERRORS)
    return isinstance(exc, botocore.exceptions.HTTPClientError | botocore.exceptions.ConnectionError)


def words(exc: BaseException) -> str:
    """Put an exception of a library into one line, which names its kind where it says too little."""
    if isinstance(exc, OSError) and exc.strerror:
        return f"{exc.filename}: {exc.strerror}" if exc.filename else exc.strerror
    text = _USER_OF_URL.sub("***@", " ".join(str(exc).split()))[:MAX_WORDS]
    return text if isinstance(exc, botocore.exceptions.BotoCoreError) and text else f"{type(exc).__name__}: {text}"


def refusal(exc: botocore.exceptions.ClientError) -> aws_errors.AwsError:
    """Extract what AWS said from the SDK's exception."""
    metadata = exc.response.get("ResponseMetadata", {})
    error = exc.response.get("Error", {})
    return aws_errors.AwsError(
        service=SERVICES.get(exc.operation_name, "ec2"),
        operation=exc.operation_name,
        code=str(error.get("Code", "unknown")),
        message=str(error.get("Message") or "")[:MAX_WORDS],
        reason=str(exc.response.get("Reason") or ""),
        status=metadata.get("HTTPStatusCode", 400),
        date=str(metadata.get("HTTPHeaders", {}).get("date", "")),
    )


def refusal_code(error: ClouduploaderError) -> str:
    """Return the code by which AWS refused; "" if the error is no refusal of AWS's."""
    cause = error.__cause__
    return str(cause.response["Error"].get("Code", "")) if isinstance(cause, botocore.exceptions.ClientError) else ""


def retries(error: ClouduploaderError) -> int:
    """Return how often the SDK had sent a request before the one that was refused so."""
    answer = getattr(error.__cause__, "response", {})
    return int(answer.get("ResponseMetadata", {}).get("RetryAttempts", 0))


def has_made_nothing(error: ClouduploaderError) -> bool:
    """Tell whether a request that was to make something has certainly not done so.

    An answer of 500 or 502 does not say that, whatever its code, nor a refusal of what had been sent before: that one
    may have been granted, and its answer lost.
    """
    return is_refusal(error) and not retries(error)


def may_pass(error: ClouduploaderError) -> bool:
    """Tell whether the same call, about things that exist, may be answered otherwise in a while."""
    return isinstance(error, TransientError) or refusal_code(error).endswith(NOT_YET)
