"""The https server: a thread for each connection, with faults on purpose."""

import collections
import contextlib
import email.utils
import json
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from clouduploader.sandbox.aws.account import SandboxAccount
from clouduploader.sandbox.aws.ebs import actions, signature
from clouduploader.sandbox.aws.ebs.actions import Body, EbsActions, EbsCall
from clouduploader.sandbox.aws.ebs.errors import EbsError
from clouduploader.sandbox.aws.ebs.http import HttpConnection, HttpResponse, ProtocolError, RequestHead
from clouduploader.sandbox.aws.ebs.signature import SignedCaller
from clouduploader.sandbox.aws.faults import CONNECT, AwsFault, HangUp, Stall
from clouduploader.sandbox.aws.layout import EBS_PORT
from clouduploader.sandbox.call_record import CallRecord
from clouduploader.sandbox.clock import CloudClock
from clouduploader.sandbox.faults import Faults

BACKLOG = 256  # twice the connections that a client of ours opens at most
BLOCK_ACTIONS = ("PutSnapshotBlock", "GetSnapshotBlock")
OK = "ok"
DROPPED = "dropped"  # what counts as the code of a request that a fault left without an answer


class EbsServer:
    """Answers the EBS direct APIs.

    Args:
        service: What answers.
        account: Has the identities.
        clock: AWS's clock.
        faults: What goes wrong.
        record: Gets each call, but of blocks only the first of a snapshot and an outcome.
    """

    def __init__(
        self,
        service: EbsActions,
        *,
        account: SandboxAccount,
        clock: CloudClock,
        faults: Faults[AwsFault],
        record: CallRecord,
    ) -> None:
        self._service = service
        self._account = account
        self._clock = clock
        self._faults = faults
        self._record = record
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._lock = threading.Lock()
        self._open: dict[int, socket.socket] = {}  # by thread
        self.forget()

    def start(self, certificate: Path) -> None:
        """Listen, and answer in threads of its own until the process ends.

        Args:
            certificate: A file with private key and certificate.
        """
        self._context.load_cert_chain(certificate)
        listener = socket.create_server(("", EBS_PORT), backlog=BACKLOG)
        threading.Thread(target=self._accept, args=[listener], daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=self._serve, args=[sock], daemon=True).start()

    def forget(self) -> None:
        """Close all connections, and count from zero."""
        with self._lock:
            for sock in self._open.values():
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
            self._counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
            self._peak = self._connections = 0
            self._recorded: set[tuple[str, str, str]] = set()

    def report(self) -> dict[str, Any]:
        """Return what the control channel tells; see the package."""
        with self._lock:
            return {
                "connections": {"open": len(self._open), "peak": self._peak, "total": self._connections},
                "calls": {action: dict(counts) for action, counts in self._counts.items()},
            }

    # --- a connection

    def _serve(self, plain: socket.socket) -> None:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with plain, self._counted(plain), contextlib.suppress(OSError, ProtocolError):
            for fault in self._faults.hits(CONNECT):
                time.sleep(fault.delay_seconds)
                if fault.stall:
                    HttpConnection(plain).wait_for_hang_up()
                if fault.stall or fault.hang_up:
                    return
            with self._context.wrap_socket(plain, server_side=True) as sock:
                self._open[threading.get_ident()] = sock  # the plain one is empty now
                connection = HttpConnection(sock)
                while (head := connection.read_head()) and self._answer(connection, head):
                    pass

    @contextlib.contextmanager
    def _counted(self, plain: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open[threading.get_ident()] = plain
            self._connections += 1
            self._peak = max(self._peak, len(self._open))
        try:
            yield
        finally:
            with self._lock:
                del self._open[threading.get_ident()]

    def _answer(self, connection: HttpConnection, head: RequestHead) -> bool:
        """Answer one request.

        Returns:
            Whether the connection can be used again.
        """
        call = actions.route(head)
        hits = self._faults.hits(call.action, call.snapshot_id) if call else []
        stall = next((fault.stall for fault in hits if fault.stall), None)
        hang_up = next((fault.hang_up for fault in hits if fault.hang_up), None)
        if stall is Stall.READ or hang_up is HangUp.BEFORE:
            return self._drop(connection, call, stall)
        data = connection.read_body(head)
        if stall is Stall.ANSWER or hang_up is HangUp.AFTER:
            return self._drop(connection, call, stall)
        answer = self._outcome(head, call, data, hits)
        if stall is Stall.DONE or any(fault.lose_answer for fault in hits):
            return self._drop(connection, call, stall)
        cut = next((fault.cut_answer for fault in hits if fault.cut_answer is not None), None)
        connection.send(answer, share=1 if cut is None else cut)
        return cut is None and hang_up is None and head.headers.get("connection", "").lower() != "close"

    def _drop(self, connection: HttpConnection, call: EbsCall | None, stall: Stall | None) -> bool:
        if call:
            with self._lock:
                self._counts[call.action][DROPPED] += 1
        if stall:
            connection.wait_for_hang_up()
        return False

    # --- a call

    def _outcome(self, head: RequestHead, call: EbsCall | None, data: memoryview, hits: list[AwsFault]) -> HttpResponse:
        began = time.time()
        body = Body(data, sha256(data).digest())
        caller = None
        try:
            if any(fault.expire for fault in hits):
                self._account.expire()
            caller = signature.verify(head, lambda: body.digest.hex(), account=self._account, now=self._clock.now())
            if call is None:
                raise EbsError("UnknownOperationException", "There is no such operation.", status=404)
            answer, code = self._done(call, caller, body, hits), ""
        except EbsError as exc:
            answer, code = _refusal(exc), exc.code
        now = email.utils.formatdate(self._clock.now().timestamp(), usegmt=True)
        headers = {"x-amzn-RequestId": str(uuid.uuid4()), "Date": now, **answer.headers}
        if call:
            self._note(call, caller, answer.status, code, began)
        missing = max((fault.short_bytes for fault in hits), default=0)
        return HttpResponse(answer.status, headers, answer.body[: len(answer.body) - missing])

    def _done(self, call: EbsCall, caller: SignedCaller, body: Body, hits: list[AwsFault]) -> HttpResponse:
        with self._service.under_way(call, body, caller.region):
            for fault in hits:
                time.sleep(fault.delay_seconds)
            for fault in hits:
                if fault.code:
                    raise EbsError(fault.code, fault.message, fault.reason, fault.status)
            if any(fault.corrupt for fault in hits):
                body.data[0] ^= 0xFF  # the digest stays
            answer = self._service.do(call, caller, body)
        if any(fault.wrong_checksum for fault in hits):
            return HttpResponse(answer.status, {**answer.headers, "x-amz-Checksum": "A" * 43 + "="}, answer.body)
        return answer

    def _note(self, call: EbsCall, caller: SignedCaller | None, status: int, code: str, began: float) -> None:
        if caller:
            self._service.note(call, caller, code)
        with self._lock:
            self._counts[call.action][code or OK] += 1
            if caller and caller.key_id == self._account.auditor_key_id:
                return
            if call.action in BLOCK_ACTIONS:
                kind = (call.action, call.snapshot_id, code)
                if kind in self._recorded:
                    return
                self._recorded.add(kind)
        self._record.add(
            {
                "time": round(began, 3),
                "service": "ebs",
                "action": call.action,
                "region": caller.region if caller else "",
                "key": caller.key_id[:4] if caller else "",
                "has_token": "x-amz-security-token" in call.head.headers,
                "status": status,
                "code": code or None,
                "seconds": round(time.time() - began, 3),
                "arguments": {"SnapshotId": call.snapshot_id} if call.snapshot_id else {},
            }
        )


def _refusal(error: EbsError) -> HttpResponse:
    shown = {"Message": error.message} | ({"Reason": error.reason} if error.reason else {})
    return HttpResponse(error.status, {"x-amzn-ErrorType": error.code}, json.dumps(shown).encode())
