"""AssumeRole by one signed HTTP request of our own.

With static keys in the home, the case of every job of OBS, importing boto3 and making its client
costs several times what all the rest does until the first request (bench/README.rst). boto3 does
whatever is less plain: see `credentials`.
"""

import datetime
import hashlib
import http.client
import time
import urllib.parse
import xml.parsers.expat
from collections.abc import Callable, Mapping

from clouduploader.errors import PlatformReplyError, TransientError
from clouduploader.platforms.ec2 import endpoint, refusals, sigv4

CONTENT_TYPE = "application/x-www-form-urlencoded; charset=utf-8"
API_VERSION = "2011-06-15"  # of STS, the only one there is
TIMEOUT_SECONDS = 20  # connecting, and each wait for an answer; STS answers in well under one
TRIES = 4
PAUSE_SECONDS = 1.0  # doubled from try to try
MAX_ANSWER_BYTES = 1 << 20


def endpoint_url(region: str, environment: Mapping[str, str]) -> str:
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
    place = endpoint.parse(endpoint_url(region, environment), origin="AWS_ENDPOINT_URL or AWS_ENDPOINT_URL_STS")
    connection = _connection(place, environment)
    body = urllib.parse.urlencode({"Action": "AssumeRole", "Version": API_VERSION, **parameters}).encode()
    pause = PAUSE_SECONDS
    for number in range(1, TRIES + 1):
        try:
            return _try(connection, place, region=region, keys=keys, body=body, on_call=on_call, subject=subject)
        except TransientError:
            if number == TRIES:
                raise
        time.sleep(pause)
        pause *= 2
    raise AssertionError("unreachable: the last try returns or raises")


def _try(
    connection: http.client.HTTPConnection,
    place: endpoint.Endpoint,
    *,
    region: str,
    keys: sigv4.Keys,
    body: bytes,
    on_call: Callable[[str], None],
    subject: str,
) -> sigv4.Keys:
    url, path = place.url, f"{place.prefix}/"
    headers = sigv4.sign(
        {"content-type": CONTENT_TYPE, "host": place.authority},
        keys=keys,
        service="sts",
        region=region,
        method="POST",
        path=path,
        payload=hashlib.sha256(body).hexdigest(),
        stamp=sigv4.stamp(int(time.time())),
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


def _connection(place: endpoint.Endpoint, environment: Mapping[str, str]) -> http.client.HTTPConnection:
    """Prepare a connection; it connects at each request, as each is the last on it."""
    if not place.is_tls:
        return http.client.HTTPConnection(place.host, place.port, timeout=TIMEOUT_SECONDS)
    context = endpoint.tls_context(environment)
    return http.client.HTTPSConnection(place.host, place.port, timeout=TIMEOUT_SECONDS, context=context)


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
