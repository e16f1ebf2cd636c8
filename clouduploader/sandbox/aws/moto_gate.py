"""Pass requests to moto: check their signatures' time and keys, apply faults, record calls."""

import datetime
import io
import json
import re
import socket
import time
import traceback
import urllib.parse
from collections.abc import Callable, Iterable
from typing import Any
from xml.sax.saxutils import escape

from werkzeug.exceptions import ClientDisconnected
from werkzeug.wrappers import Request, Response

from clouduploader.sandbox.aws.account import SandboxAccount
from clouduploader.sandbox.aws.amz_date import parse_amz_date, serialize_amz_date
from clouduploader.sandbox.aws.faults import AwsFault
from clouduploader.sandbox.aws.layout import REGIONS
from clouduploader.sandbox.call_record import CallRecord
from clouduploader.sandbox.clock import CloudClock
from clouduploader.sandbox.cloud import WsgiApp
from clouduploader.sandbox.faults import Faults
from clouduploader.util.frozen import frozen

CREDENTIAL = re.compile(r"Credential=([^/,]+)/(\d{8})/([^/,]+)/([^/,]+)/aws4_request")
SKEW = datetime.timedelta(minutes=15)  # EC2's error RequestExpired, IAM's "Signature Version 4"
SECRET_ARGUMENTS = frozenset({"Action", "Version", "ExternalId", "Policy", "UserData", "PublicKeyMaterial"})
MAX_ARGUMENT = 200  # characters of a value in the log; AMI names and tags fit


@frozen()
class ApiRefusal:
    """An error that is answered instead of doing what was asked.

    Attributes:
        status: Of HTTP.
        code: Amazon's.
        message: For people.
    """

    status: int
    code: str
    message: str


@frozen()
class ApiCall:
    """One request of the AWS API, by its headers and form.

    Attributes:
        service: For example ec2.
        action: For example RunInstances.
        region: As signed.
        key_id: As signed.
        has_token: Whether a session token came with it.
        signed_at: The time it claims, or None.
        form: The arguments.
    """

    service: str
    action: str
    region: str
    key_id: str
    has_token: bool
    signed_at: datetime.datetime | None
    form: dict[str, str]


class MotoGate:
    """A WSGI application around moto's.

    Args:
        app: moto.
        account: Tells expiry; its lock is held while moto works.
        clock: AWS's clock.
        faults: What goes wrong.
        record: Gets each call.
    """

    def __init__(
        self, app: WsgiApp, *, account: SandboxAccount, clock: CloudClock, faults: Faults[AwsFault], record: CallRecord
    ) -> None:
        self._app = app
        self._account = account
        self._clock = clock
        self._faults = faults
        self._record = record
        self._answered: dict[tuple[str, str, str], tuple[dict[str, str], Response]] = {}

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        try:
            call = _read_call(environ)
        except ClientDisconnected as exc:  # the client was killed while it sent
            return exc(environ, start_response)
        began = time.time()
        hits = self._faults.hits(call.action)
        for fault in hits:
            time.sleep(fault.delay_seconds)
        refusal = self._refusal(call) or next(
            (ApiRefusal(fault.status or 400, fault.code, fault.message) for fault in hits if fault.code), None
        )
        if refusal:
            response = Response(_error_xml(call.service, refusal), refusal.status, content_type="text/xml")
        else:
            with self._account.lock:
                self._account.advance(self._clock.now())
                response = self._answer(call, environ)
        self._log(call, response, began)
        if any(fault.lose_answer for fault in hits):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return response(environ, start_response)

    def forget(self) -> None:
        """Forget all client tokens."""
        self._answered.clear()

    def _answer(self, call: ApiCall, environ: dict[str, Any]) -> Response:
        """Let moto answer; the same client token gets the same answer, and nothing is done twice."""
        token = call.form.get("ClientToken")
        if token is None:
            return self._of_moto(call, environ)
        place = (call.region, call.action, token)
        form, response = self._answered.get(place, (call.form, None))
        if form != call.form:
            refusal = ApiRefusal(
                400,
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
            )
            return Response(_error_xml(call.service, refusal), refusal.status, content_type="text/xml")
        if response is None:
            response = self._of_moto(call, environ)
            if response.status_code < 400:
                self._answered[place] = (call.form, response)
        return response

    def _of_moto(self, call: ApiCall, environ: dict[str, Any]) -> Response:
        """Let moto answer; turn what it does not know, or fails at, into an error of AWS's form too."""
        try:
            return Response.from_app(self._app, environ, buffered=True)
        except NotImplementedError:
            message = f"The action {call.action} is not valid for this web service: the sandbox does not know it."
            refusal = ApiRefusal(400, "InvalidAction", message)
        except Exception:  # noqa: BLE001 a bug of moto's must not be a page of HTML to an SDK
            traceback.print_exc()
            refusal = ApiRefusal(500, "InternalError", f"The sandbox failed at {call.action}.")
        if call.service != "kms":
            return Response(_error_xml(call.service, refusal), refusal.status, content_type="text/xml")
        code = {"InvalidAction": "UnknownOperationException", "InternalError": "KMSInternalException"}[refusal.code]
        error = {"__type": code, "message": refusal.message}  # the JSON protocol
        return Response(json.dumps(error), refusal.status, content_type="application/x-amz-json-1.1")

    def _refusal(self, call: ApiCall) -> ApiRefusal | None:
        if not call.key_id:
            return ApiRefusal(403, "MissingAuthenticationToken", "Request is missing Authentication Token")
        if call.region not in REGIONS:
            if call.service == "ec2":
                return _auth_failure()
            return ApiRefusal(403, "InvalidClientTokenId", "The security token included in the request is invalid")
        if call.signed_at is None or abs(self._clock.now() - call.signed_at) > SKEW:
            return self._skewed(call)
        expiry = self._account.expiry(call.key_id)
        # Expiry is by this machine's clock, by which moto wrote it down.
        if expiry and datetime.datetime.now(datetime.UTC) > expiry:
            if call.service == "ec2":
                return ApiRefusal(400, "RequestExpired", "Request has expired.")
            return ApiRefusal(403, "ExpiredToken", "The security token included in the request is expired")
        return None

    def _skewed(self, call: ApiCall) -> ApiRefusal:
        if call.service == "ec2":
            return ApiRefusal(400, "RequestExpired", "Request has expired.")
        if call.signed_at is None:
            return ApiRefusal(403, "IncompleteSignature", "Date must be in ISO-8601 'basic format'.")
        here = self._clock.now()
        is_old = call.signed_at < here
        signed, now = serialize_amz_date(call.signed_at), serialize_amz_date(here)
        limit = serialize_amz_date(here - SKEW if is_old else here + SKEW)
        words = (
            f"Signature expired: {signed} is now earlier than {limit} ({now} - 15 min.)"
            if is_old
            else f"Signature not yet current: {signed} is still later than {limit} ({now} + 15 min.)"
        )
        return ApiRefusal(403, "SignatureDoesNotMatch", words)

    def _log(self, call: ApiCall, response: Response, began: float) -> None:
        if call.key_id == self._account.auditor_key_id:
            return
        code = re.search(rb"<Code>([^<]*)</Code>", response.get_data()) if response.status_code >= 400 else None
        entry: dict[str, Any] = {
            "time": round(began, 3),
            "service": call.service,
            "action": call.action,
            "region": call.region,
            "key": call.key_id[:4],
            "has_token": call.has_token,
            "status": response.status_code,
            "code": code[1].decode() if code else None,
            "seconds": round(time.time() - began, 3),
            "arguments": {
                name: value[:MAX_ARGUMENT] for name, value in call.form.items() if name not in SECRET_ARGUMENTS
            },
        }
        self._record.add(entry)


def _read_call(environ: dict[str, Any]) -> ApiCall:
    request = Request(environ)
    body = request.get_data(cache=True)
    environ["wsgi.input"] = io.BytesIO(body)
    form = dict(urllib.parse.parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    credential = CREDENTIAL.search(request.headers.get("Authorization", ""))
    key_id, _, region, service = credential.groups() if credential else ("", "", "", "")
    return ApiCall(
        service=service,
        action=form.get("Action") or request.headers.get("X-Amz-Target", request.path).rpartition(".")[2],
        region=region,
        key_id=key_id,
        has_token="X-Amz-Security-Token" in request.headers,
        signed_at=parse_amz_date(request.headers.get("X-Amz-Date", "")),
        form=form,
    )


def _auth_failure() -> ApiRefusal:
    return ApiRefusal(401, "AuthFailure", "AWS was not able to validate the provided access credentials")


def _error_xml(service: str, refusal: ApiRefusal) -> str:
    error = f"<Error><Code>{escape(refusal.code)}</Code><Message>{escape(refusal.message)}</Message></Error>"
    if service == "ec2":  # the EC2 protocol wraps it otherwise than the query protocol of STS
        return f"<Response><Errors>{error}</Errors><RequestID>sandbox</RequestID></Response>"
    return f"<ErrorResponse>{error}<RequestId>sandbox</RequestId></ErrorResponse>"
