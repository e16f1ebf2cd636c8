"""What stands before the servers of an emulated cloud: it notes each call, and makes some go wrong on purpose."""

import asyncio
import contextlib
import dataclasses
import enum
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import multidict
import yarl
from aiohttp import web

from clouduploader.sandbox.call_record import CallRecord
from clouduploader.sandbox.faults import Fault, Faults
from clouduploader.util.frozen import frozen

PIECE_BYTES = 1 << 16
MAX_BODY_BYTES = 64 << 20  # that is read here, and not by a server behind; pages have 4 MiB
LOOK_SECONDS = 0.05
# RFC 9110, 7.6.1, and what aiohttp writes itself
_OF_ONE_HOP = ("Connection", "Expect", "Keep-Alive", "Proxy-Connection", "TE", "Transfer-Encoding", "Upgrade")


class Stall(enum.StrEnum):
    """When a request stalls, until the client closes the connection."""

    READ = "read"
    """The body is not read."""
    DONE = "done"
    """It is done, and no answer comes."""


@dataclasses.dataclass
class HttpFault(Fault):
    """A fault of a call that goes through a gateway.

    Attributes:
        stall: See Stall.
        cut_request_bytes: The connection is cut after so many bytes of the body, which a server behind has got.
        cut_answer: Done, and the connection is cut after this share of the answer's body; less than 1.
        corrupt: Done, but with the first byte of the body changed; for calls that a server behind answers.
    """

    stall: Stall | None = None
    cut_request_bytes: int | None = None
    cut_answer: float | None = None
    corrupt: bool = False

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            ValueError: There is no such stall.
        """
        super().__post_init__()
        self.stall = Stall(self.stall) if self.stall else None


@frozen()
class Call:
    """What a request asks for.

    Attributes:
        action: In the words of the cloud's documentation, as a Fault names it.
        subject: What it is about, for the record; never a secret.
    """

    action: str
    subject: str = ""


Handler = Callable[[web.Request], Awaitable[web.Response]]


@frozen()
class _Answer:
    """An answer that has not been sent yet.

    Attributes:
        status: Its status.
        headers: Without those of one hop.
        length: Of its body; None if that is not known.
        pieces: Its body.
    """

    status: int
    headers: multidict.CIMultiDict[str]
    length: int | None
    pieces: AsyncIterator[bytes]


_Ask = Callable[[web.Request, list[HttpFault]], contextlib.AbstractAsyncContextManager[_Answer]]


class _CutError(Exception):
    """The connection to the client is to be cut."""


class Gateway:
    """Serves endpoints of a cloud in the event loop of the sandbox's server.

    Args:
        record: Gets the calls.
        faults: What goes wrong on purpose.
        refuse: Makes the answer of a fault that has a code or a status, as the cloud would word it.
    """

    def __init__(
        self, record: CallRecord, faults: Faults[HttpFault], refuse: Callable[[HttpFault, Call], web.Response]
    ) -> None:
        self._record = record
        self._faults = faults
        self._refuse = refuse
        self._closing = contextlib.AsyncExitStack()

    async def serve(
        self,
        port: int,
        backend: str | Handler,
        *,
        service: str,
        name_call: Callable[[web.Request], Call],
        certificate: Path | None = None,
    ) -> int:
        """Serve one endpoint on 127.0.0.1, until `close`.

        Args:
            port: Of the endpoint; 0 for any.
            backend: The URL of the server behind it, without a path; or what answers here.
            service: Its name in the record of calls.
            name_call: Tells what a request asks for.
            certificate: Key and certificate, see `certificates`; None for http.

        Returns:
            The port.
        """
        ask = await self._asker(backend) if isinstance(backend, str) else _handled_by(backend)

        async def answer(request: web.Request) -> web.StreamResponse:
            return await self._serve_call(request, ask, service, name_call(request))

        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0, auto_decompress=False)
        await runner.setup()
        self._closing.push_async_callback(runner.cleanup)
        context = None
        if certificate:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate)
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
        return int(runner.addresses[0][1])

    async def close(self) -> None:
        """Serve no more."""
        await self._closing.aclose()

    async def _asker(self, url: str) -> _Ask:
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        await self._closing.enter_async_context(session)
        return _handled_behind(session, url)

    async def _serve_call(self, request: web.Request, ask: _Ask, service: str, call: Call) -> web.StreamResponse:
        hits = self._faults.hits(call.action, call.subject)
        began = time.time()
        code = next((fault.code for fault in hits if fault.code), None)
        entry = {"time": began, "service": service, "action": call.action, "subject": call.subject, "code": code}

        def note(status: int) -> None:
            self._record.add(entry | {"status": status, "seconds": round(time.time() - began, 3)})

        try:
            async with self._asked(request, ask, call, hits, note) as answer:
                return await _deliver(request, answer, hits)
        except (_CutError, ConnectionError, aiohttp.ClientError):  # a client that leaves, or a server behind that does
            if request.transport:
                request.transport.abort()
            return web.Response()  # aiohttp sees that the connection is gone

    @contextlib.asynccontextmanager
    async def _asked(
        self, request: web.Request, ask: _Ask, call: Call, hits: list[HttpFault], note: Callable[[int], None]
    ) -> AsyncIterator[_Answer]:
        """Do what is asked for, unless a fault keeps from that; it is noted before the client can know."""
        for fault in hits:
            await asyncio.sleep(fault.delay_seconds)
            if fault.stall is Stall.READ:
                note(0)
                await _departure(request)
            if fault.code or fault.status:
                await request.read()
                refusal = self._refuse(fault, call)
                note(refusal.status)
                yield await _answered(refusal)
                return
        if any(fault.cut_request_bytes is not None for fault in hits):
            note(0)
        async with ask(request, hits) as answer:
            note(answer.status)
            if any(fault.lose_answer for fault in hits):
                raise _CutError
            if any(fault.stall is Stall.DONE for fault in hits):
                await _departure(request)
            yield answer


def _handled_by(handler: Handler) -> _Ask:
    @contextlib.asynccontextmanager
    async def ask(request: web.Request, hits: list[HttpFault]) -> AsyncIterator[_Answer]:
        if any(fault.cut_request_bytes is not None for fault in hits):
            raise _CutError
        yield await _answered(await handler(request))

    return ask


def _handled_behind(session: aiohttp.ClientSession, url: str) -> _Ask:
    @contextlib.asynccontextmanager
    async def ask(request: web.Request, hits: list[HttpFault]) -> AsyncIterator[_Answer]:
        headers = _of_all_hops(request.headers)
        headers["X-Forwarded-Proto"] = request.scheme  # for URLs that a server behind puts into its answers
        async with session.request(
            request.method,
            yarl.URL(f"{url}{request.raw_path}", encoded=True),
            headers=headers,
            data=_body(request, hits) if request.body_exists else None,
            allow_redirects=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        ) as found:
            yield _Answer(
                found.status, _of_all_hops(found.headers), found.content_length, found.content.iter_chunked(PIECE_BYTES)
            )

    return ask


async def _body(request: web.Request, hits: list[HttpFault]) -> AsyncIterator[bytes]:
    """Read a request's body, as faults want it."""
    left = min((fault.cut_request_bytes for fault in hits if fault.cut_request_bytes is not None), default=None)
    is_corrupt = any(fault.corrupt for fault in hits)
    async for piece in request.content.iter_chunked(PIECE_BYTES):
        if left is not None:
            if len(piece) >= left:
                yield piece[:left]
                raise _CutError
            left -= len(piece)
        yield bytes([piece[0] ^ 1]) + piece[1:] if is_corrupt else piece
        is_corrupt = False


async def _answered(response: web.Response) -> _Answer:
    """Take apart what answers here."""
    body = bytes(response.body) if isinstance(response.body, bytes | bytearray) else b""

    async def pieces() -> AsyncIterator[bytes]:
        yield body

    return _Answer(response.status, _of_all_hops(response.headers), len(body), pieces())


async def _deliver(request: web.Request, answer: _Answer, hits: list[HttpFault]) -> web.StreamResponse:
    """Send an answer, as faults want it.

    Raises:
        _CutError: It was to be cut.
    """
    shares = [fault.cut_answer for fault in hits if fault.cut_answer is not None]
    left = int((answer.length or 0) * min(shares)) if shares else None
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    if answer.length is not None:
        response.content_length = answer.length
    await response.prepare(request)
    async for piece in answer.pieces:
        if left is not None and len(piece) > left:
            await response.write(piece[:left])
            raise _CutError
        left = None if left is None else left - len(piece)
        await response.write(piece)
    await response.write_eof()
    return response


async def _departure(request: web.Request) -> None:
    """Wait until the client has closed the connection.

    Raises:
        _CutError: It has.
    """
    while request.transport and not request.transport.is_closing():
        await asyncio.sleep(LOOK_SECONDS)
    raise _CutError


def _of_all_hops(headers: "multidict.CIMultiDictProxy[str] | multidict.CIMultiDict[str]") -> multidict.CIMultiDict[str]:
    kept = multidict.CIMultiDict(headers)
    for name in _OF_ONE_HOP:
        kept.popall(name, None)
    return kept
