"""Make one request of the SDK and read its whole answer, within a time; check that it has what we read of it.

The SDK's parsers take a body that was cut off, or that another server made, for an answer in which little stands: all
members of most shapes are optional in its models. An answer that has passed `check_answer` has what is named here, and
all that it has is of the type that the model gives it.
"""

import datetime
import http.client
import io
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

import botocore.awsrequest
import botocore.exceptions
import botocore.httpsession
import urllib3.exceptions
import urllib3.util.ssl_match_hostname

from clouduploader.errors import ConfigError, NetworkError
from clouduploader.platforms.ec2 import aws_errors
from clouduploader.util import deadline
from clouduploader.util.cancel import Cancel

SECONDS = 100.0
"""For connecting (20 s) and for an answer (60 s of silence, see `boto.CONFIG`), and some for its parts."""
MAX_BODY_BYTES = 64 << 20  # a page of thousands of images has a few; a block has half a MiB
PIECE_BYTES = 1 << 16
UNTRUSTED_ERRORS = (ssl.SSLCertVerificationError, urllib3.util.ssl_match_hostname.CertificateError)
"""What OpenSSL and urllib3 raise for a certificate that is not believed."""
_NO_BODY = (http.client.NO_CONTENT, http.client.NOT_MODIFIED)
READ: Mapping[str, tuple[str, ...]] = {
    "AssumeRole": (
        "Credentials.AccessKeyId",
        "Credentials.SecretAccessKey",
        "Credentials.SessionToken",
        "Credentials.Expiration",
    ),
    "CompleteSnapshot": ("Status",),
    "CopyImage": ("ImageId",),
    "CreateSecurityGroup": ("GroupId",),
    "DescribeImages": ("Images", "Images[].ImageId", "Images[].State"),
    "DescribeInstances": (
        "Reservations",
        "Reservations[].Instances[].InstanceId",
        "Reservations[].Instances[].State.Name",
    ),
    "DescribeInstanceTypes": ("InstanceTypes",),
    "DescribeInternetGateways": ("InternetGateways", "InternetGateways[].InternetGatewayId"),
    "DescribeKey": ("KeyMetadata.Arn",),
    "DescribeKeyPairs": ("KeyPairs", "KeyPairs[].KeyName"),
    "DescribeRouteTables": ("RouteTables", "RouteTables[].RouteTableId"),
    "DescribeSecurityGroups": ("SecurityGroups", "SecurityGroups[].GroupId"),
    "DescribeSnapshots": ("Snapshots", "Snapshots[].SnapshotId", "Snapshots[].State"),
    "DescribeSubnets": ("Subnets", "Subnets[].SubnetId", "Subnets[].VpcId"),
    "DescribeVolumes": ("Volumes", "Volumes[].VolumeId"),
    "DescribeVpcs": ("Vpcs", "Vpcs[].VpcId"),
    "GetCallerIdentity": ("Account", "Arn"),
    "GetSnapshotBlock": ("BlockData",),
    "ListSnapshotBlocks": ("Blocks", "Blocks[].BlockIndex", "Blocks[].BlockToken"),
    "PutSnapshotBlock": ("Checksum",),
    "RegisterImage": ("ImageId",),
    "StartSnapshot": ("SnapshotId",),
}
"""Operations, and the members of their answers that callers read without asking whether they are there.

`[]` stands for each item of a list, which may have none. A member that is an empty string is not there.
"""

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "character": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (float, int),
    "double": (float, int),
    "timestamp": (datetime.datetime,),
}


class MalformedAnswerError(botocore.exceptions.HTTPClientError):  # type: ignore[misc] # botocore has no types
    """What came is no answer of AWS, or half of one. The SDK tries again, as after a connection that was lost."""

    fmt = "{error}"


class Exchange:
    """Stands for the SDK's HTTP session in a client.

    Args:
        sdk: That session.
        cancel: Once it is requested, an exchange ends within seconds.

    Attributes:
        sdk: The same.
    """

    def __init__(self, sdk: Any, cancel: Cancel | None) -> None:
        self.sdk = sdk
        self._cancel = cancel

    def send(self, request: Any) -> botocore.awsrequest.AWSResponse:
        """Send a request, and read its whole answer, that of a stream too.

        Raises:
            NetworkError: It took too long.
            ConfigError: The certificate is not believed, or the authorities can't be read.
            botocore.exceptions.BotoCoreError: There was no answer, or a part of one.
        """
        try:
            return deadline.within(SECONDS, lambda: self._whole(request), self._cancel)
        except deadline.OverdueError:
            raise NetworkError(
                f"{request.url} was at its answer for too long", hint="Check the network and the proxy settings."
            ) from None

    def close(self) -> None:
        """End the SDK's session."""
        self.sdk.close()

    def _whole(self, request: Any) -> botocore.awsrequest.AWSResponse:
        url = request.url
        request.stream_output = True  # else the SDK reads as much as is sent
        try:
            head = self.sdk.send(request)
        except botocore.exceptions.SSLError as exc:
            cause = cause_of(exc)
            if isinstance(cause, UNTRUSTED_ERRORS):
                raise aws_errors.untrusted(url, cause) from exc
            _check_authorities(botocore.httpsession.get_cert_path(self.sdk._verify))
            raise
        except botocore.exceptions.BotoCoreError as exc:
            if found := unusable_url(exc):
                raise found from None
            raise
        try:
            body = _read(head)
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as exc:
            head.raw.close()
            raise botocore.exceptions.ConnectionClosedError(endpoint_url=url, error=exc) from exc
        except MalformedAnswerError:
            head.raw.close()
            raise
        return botocore.awsrequest.AWSResponse(url, head.status_code, head.headers, _Body(body))


class _Body(io.BytesIO):
    """A body that was read, with the methods by which the SDK reads one."""

    def stream(self) -> Iterator[bytes]:
        """Yield all that is left, at once."""
        yield self.read()


def _read(head: Any) -> bytes:
    """Read a body to its end, which its head must tell: what ends with the connection may have been cut."""
    url, status = head.url, head.status_code
    if not (200 <= status < 300 or 400 <= status < 600):
        raise MalformedAnswerError(endpoint_url=url, error=f"HTTP status {status}, which no API of AWS gives")
    length = head.headers.get("Content-Length")
    is_chunked = "chunked" in head.headers.get("Transfer-Encoding", "").lower()
    if not is_chunked and status not in _NO_BODY and not (length and length.isdecimal()):
        raise MalformedAnswerError(endpoint_url=url, error="an answer without its length: it may have been cut")
    data = bytearray()
    for piece in head.raw.stream(PIECE_BYTES, decode_content=False):
        data += piece
        if len(data) > MAX_BODY_BYTES:
            raise MalformedAnswerError(endpoint_url=url, error=f"an answer of more than {MAX_BODY_BYTES} bytes")
    if length and not is_chunked and status not in _NO_BODY and len(data) != int(length):
        raise MalformedAnswerError(endpoint_url=url, error=f"{len(data)} of the {length} bytes of an answer")
    return bytes(data)


def _check_authorities(path: str) -> None:
    """Return if the certificates of a file can be used: what the SDK says of one that is empty is a failure of TLS.

    Raises:
        ConfigError: They can't.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError as exc:  # an error of OpenSSL is one
        raise aws_errors.no_authorities(path, exc) from exc


def unusable_url(exc: BaseException) -> ConfigError | None:
    """Make the error for a URL with which no other try will do better; None if it is about something else.

    What is returned does not have the URL: there may be a password in it.
    """
    if isinstance(exc, botocore.exceptions.ProxyConnectionError):
        # the SDK puts "http://" before what begins otherwise
        scheme, mark, _ = exc.kwargs["proxy_url"].removeprefix("http://").partition("://")
        if mark and scheme != "https":
            return ConfigError(
                f"the proxy on the way to AWS is one of {scheme}, and AWS's SDK knows none but those of http and https",
                hint="Give the URL of such a one in HTTPS_PROXY; NO_PROXY=amazonaws.com goes past it.",
            )
    if isinstance(exc, botocore.exceptions.HTTPClientError) and isinstance(cause_of(exc), ValueError):
        return ConfigError(  # urllib3.exceptions.LocationValueError is a ValueError
            "the URL of the endpoint of AWS, or of the proxy on the way, is none of http or https",
            hint="Look at HTTPS_PROXY, and at the variables AWS_ENDPOINT_URL* and .aws/config.",
        )
    return None


def cause_of(exc: BaseException) -> BaseException:
    """Unwrap what OpenSSL or Python raised from what urllib3 and botocore have put around it."""
    inner = exc.kwargs.get("error") if isinstance(exc, botocore.exceptions.BotoCoreError) else None
    while isinstance(inner, urllib3.exceptions.HTTPError) and inner.args and isinstance(inner.args[-1], BaseException):
        inner = inner.args[-1]
    return inner if isinstance(inner, BaseException) else exc


class HalfAnswerError(Exception):
    """An answer lacks what we read of it, or has it of another type; says what."""


def check_answer(operation: str, answer: Any, service: Any) -> None:
    """Find out whether an answer is what its API gives.

    Args:
        operation: Its name in the API.
        answer: As the SDK has parsed it.
        service: botocore's model of the API.

    Raises:
        HalfAnswerError: It is not.
    """
    shape = service.operation_model(operation).output_shape
    if shape is not None:
        _check_types(answer, shape, operation)
    for path in READ.get(operation, ()):
        if not all(_is_there(value) for value in _values(answer, path.replace("[]", ".[]").split("."))):
            raise HalfAnswerError(f"there is no {path} in the answer to {operation}")


def complete_refusal(response: dict[str, Any]) -> None:
    """Give a refusal that has no code one that says so: all handlers look at the code."""
    error = response.get("Error")
    if not isinstance(error, dict):
        error = {}
    response["Error"] = error | {
        "Code": str(error.get("Code") or "unknown"),
        "Message": str(error.get("Message") or ""),
    }


def is_of_aws(response: Mapping[str, Any]) -> bool:
    """Tell whether a refusal, see `complete_refusal`, has a code; else a proxy has answered in AWS's place.

    Where there is none, the SDK gives the status of HTTP for one. A failure (5xx) counts whatever sent it.
    """
    code, status = response["Error"]["Code"], response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
    return status >= 500 or not (code.isdecimal() or code.lower() == "unknown")


def _is_there(value: Any) -> bool:
    return value is not None and value != ""


def _values(answer: Any, path: list[str]) -> Iterator[Any]:
    """Yield what a path leads to: one value, None if it is absent, or one for each item of the lists in it."""
    if not path:
        yield answer
    elif path[0] == "[]":
        for item in answer or ():
            yield from _values(item, path[1:])
    else:
        yield from _values((answer or {}).get(path[0]), path[1:])


def _check_types(value: Any, shape: Any, where: str) -> None:
    kind = shape.type_name
    if kind == "structure":
        _expect(value, (dict,), where)
        for name, member in shape.members.items():
            if value.get(name) is not None:
                _check_types(value[name], member, f"{where}.{name}")
    elif kind == "list":
        _expect(value, (list,), where)
        for item in value:
            _check_types(item, shape.member, f"{where}[]")
    elif kind == "map":
        _expect(value, (dict,), where)
    elif kind in _TYPES:
        _expect(value, _TYPES[kind], where)


def _expect(value: Any, types: tuple[type, ...], where: str) -> None:
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise HalfAnswerError(f"{where} is not of type {types[0].__name__}")
