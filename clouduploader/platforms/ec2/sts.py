"""AssumeRole by one signed HTTP request of our own.

With static keys in the home, the case of every job of OBS, importing boto3 and making its client
costs several times what all the rest does until the first request (bench/README.rst). boto3 does
whatever is less plain: see `credentials`.
"""

import datetime
import http.client
import time
import urllib.parse
import xml.parsers.expat
from collections.abc import Callable, Mapping

from clouduploader.errors import ConfigError, PlatformReplyError, TransientError
from clouduploader.platforms.ec2 import refusals, sigv4

API_VERSION = "2011-06-15"  # of STS, the only one there is
TIMEOUT_SECONDS = 20  # connecting, and each wait for an answer; STS answers in well under one
TRIES = 4
PAUSE_SECONDS = 1.0  # doubled from try to try
MAX_ANSWER_BYTES = 1 << 20


def endpoint(region: str, environment: Mapping[str, str]) -> str:
    """The URL of a region's STS; AWS_ENDPOINT_URL_STS and AWS_ENDPOINT_URL go first, as in the SDKs."""
    given = environment.get("AWS_ENDPOINT_URL_STS") or environment.get("AWS_ENDPOINT_URL")
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return given or f"https://sts.{region}.{suffix}"


def assume_role(
    *,
    keys: sigv4.Keys,
    region: str,
    parameters: Mapping[str, str],
    environment: Mapping[str, str],
    on_call: Callable[[str], None],
    subject: str,
) -> sigv4.Keys:
    """Get temporary credentials. Blocks for a minute and a half at worst.

    Args:
        keys: Who asks.
        region: Of STS.
        parameters: Of the API's AssumeRole, by its names.
        environment: For the endpoint.
        on_call: Gets a line about each request: duration, status, request id.
        subject: The role in words, for errors.

    Raises:
        NetworkError: No answer.
        ConfigError: AWS_CA_BUNDLE or the URL of the endpoint can't be used.
        ClouduploaderError: See `refusals.translate`.
    """
    parts = _parts(endpoint(region, environment))
    connection = _connection(parts, environment)
    body = urllib.parse.urlencode({"Action": "AssumeRole", "Version": API_VERSION, **parameters}).encode()
    pause = PAUSE_SECONDS
    for number in range(1, TRIES + 1):
        try:
            return _try(connection, parts, region=region, keys=keys, body=body, on_call=on_call, subject=subject)
        except TransientError:
            if number == TRIES:
                raise
        time.sleep(pause)
        pause *= 2
    raise AssertionError("unreachable: the last try returns or raises")


def _try(
    connection: http.client.HTTPConnection,
    parts: urllib.parse.SplitResult,
    *,
    region: str,
    keys: sigv4.Keys,
    body: bytes,
    on_call: Callable[[str], None],
    subject: str,
) -> sigv4.Keys:
    url, path = parts.geturl(), parts.path or "/"
    headers = sigv4.signed_headers(
        keys=keys,
        service="sts",
        region=region,
        host=parts.netloc,
        path=path,
        body=body,
        now=datetime.datetime.now(datetime.UTC),
    )
    began = time.monotonic()
    try:
        connection.request("POST", path, body, headers)
        with connection.getresponse() as response:
            answer = response.read(MAX_ANSWER_BYTES)
            if response.length and len(answer) < MAX_ANSWER_BYTES:
                raise ConnectionError("the answer is cut off")
    except (OSError, http.client.HTTPException) as exc:
        raise refusals.unreachable(url, str(exc) or type(exc).__name__) from exc
    finally:
        connection.close()
    fields = _leaves(answer)
    milliseconds = round((time.monotonic() - began) * 1000)
    on_call(
        f"sts AssumeRole at {url}: {response.status} in {milliseconds} ms, "
        f"request id {fields.get('RequestId', 'unknown')}"
    )
    if response.status != http.HTTPStatus.OK:
        refusal = refusals.Refusal(
            service="sts",
            operation="AssumeRole",
            code=fields.get("Code", f"HTTP {response.status}"),
            message=fields.get("Message", response.reason),
            status=response.status,
            date=response.headers.get("Date", ""),
        )
        raise refusals.translate(refusal, subject=subject)
    return _keys(fields)


def _parts(url: str) -> urllib.parse.SplitResult:
    try:
        parts = urllib.parse.urlsplit(url)
        is_url = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        is_url = False
    if not is_url or not url.isprintable() or " " in url:
        raise ConfigError(f"AWS_ENDPOINT_URL or AWS_ENDPOINT_URL_STS is '{url}', not the URL of an endpoint")
    return parts


def _connection(parts: urllib.parse.SplitResult, environment: Mapping[str, str]) -> http.client.HTTPConnection:
    """Prepare a connection; it connects at each request, as each is the last on it."""
    host = parts.hostname or ""
    if parts.scheme == "http":
        return http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT_SECONDS)
    import ssl

    try:
        context = ssl.create_default_context(cafile=environment.get("AWS_CA_BUNDLE") or None)
    except OSError as exc:
        raise ConfigError(f"AWS_CA_BUNDLE can't be used: {exc.strerror}") from exc
    return http.client.HTTPSConnection(host, parts.port, timeout=TIMEOUT_SECONDS, context=context)


def _keys(fields: Mapping[str, str]) -> sigv4.Keys:
    key_id, secret, token, expiration = (
        fields.get(name, "") for name in ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
    )
    try:
        expires = datetime.datetime.fromisoformat(expiration)
    except ValueError:
        expires = None
    if not (key_id and secret and token and expires and expires.tzinfo):
        # what is wrong is not shown: it stands beside secrets
        raise PlatformReplyError("STS's answer to AssumeRole has no credentials in it")
    return sigv4.Keys(key_id, secret, token, expires)


def _leaves(answer: bytes) -> dict[str, str]:
    """The text of each element of an XML answer by its name; nothing if it is no XML."""
    found: dict[str, str] = {}
    text: list[str] = []
    parser = xml.parsers.expat.ParserCreate()

    def start(_name: str, _attributes: Mapping[str, str]) -> None:
        text.clear()

    def end(name: str) -> None:
        found.setdefault(name, "".join(text).strip())
        text.clear()

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text.append
    try:
        parser.Parse(answer, True)
    except xml.parsers.expat.ExpatError:
        return {}
    return found
