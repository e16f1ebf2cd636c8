import asyncio
import socket
import threading

import pytest
import urllib3
from aiohttp import web
from fakes.waiting import wait_for

from clouduploader.sandbox.call_record import CallRecord
from clouduploader.sandbox.faults import Faults
from clouduploader.sandbox.gateway import Call, Gateway, HttpFault

BODY = bytes(range(256)) * 1000


class Site:
    """A gateway before a server that keeps what it gets, and gives it back; and before the same without one.

    Attributes:
        got: The paths and bodies of requests that are over, those that broke off included.
        coming: What there is of the body that comes.
        scheme: What the gateway says that the client used, for the last request.
    """

    def __init__(self, path):
        path.touch()
        self.record, self.faults, self.got, self.coming = CallRecord(path), Faults(HttpFault), [], b""
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.run(self._start())

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    async def _start(self):
        self._back = Gateway(self.record, Faults(HttpFault), refused)
        self._gateway = Gateway(self.record, self.faults, refused)
        self.port = await self._back.serve(0, self._answer, service="back", name_call=lambda _: Call("Back"))
        self.ports = {
            "behind": await self._gateway.serve(0, f"http://127.0.0.1:{self.port}", service="behind", name_call=named),
            "here": await self._gateway.serve(0, self._answer, service="here", name_call=named),
        }

    async def _answer(self, request):
        data = b""
        try:
            async for piece in request.content.iter_any():
                data += piece
                self.coming = data
        finally:
            self.got.append((request.raw_path, data))
        self.scheme = request.headers.get("X-Forwarded-Proto")
        return web.Response(body=data, headers={"X-Was": request.headers.get("X-Is", "")})

    def close(self):
        self.run(self._gateway.close())
        self.run(self._back.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


def named(request):
    return Call(request.method.title(), request.path)


def refused(fault, call):
    return web.Response(status=fault.status or 400, text=f"{fault.code} for {call.action}")


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path / "calls")
    yield made
    made.close()


@pytest.fixture(params=["behind", "here"])
def ask(request, site):
    """Ask for something, without another try."""

    def call(method="PUT", path="/a%2Fb?c=%20d", body=BODY, timeout=10):
        with urllib3.PoolManager(retries=False, timeout=timeout) as pool:
            url = f"http://127.0.0.1:{site.ports[request.param]}{path}"
            return pool.request(method, url, body=body, headers={"X-Is": "here"})

    call.place = request.param
    return call


def test_call_is_answered_as_if_nothing_were_between_and_recorded(site, ask):
    answer = ask()
    assert (answer.status, answer.data, answer.headers["X-Was"]) == (200, BODY, "here")
    assert site.got == [("/a%2Fb?c=%20d", BODY)]
    assert site.scheme == ("http" if ask.place == "behind" else None)
    (call,) = [call for call in site.record.calls() if call["service"] == ask.place]
    assert (call["action"], call["subject"], call["status"], call["code"]) == ("Put", "/a/b", 200, None)


def test_call_that_is_refused_is_not_done(site, ask):
    site.faults.replace([{"action": "Put", "code": "Busy", "status": 503, "first": 1}])
    answer = ask()
    assert (answer.status, answer.data) == (503, b"Busy for Put")
    assert site.got == []
    assert ask().status == 200


@pytest.mark.parametrize("how", [{"lose_answer": True}, {"cut_answer": 0.5}])
def test_answer_is_lost_after_it_was_done(site, ask, how):
    site.faults.replace([{"action": "Put", **how}])
    with pytest.raises((urllib3.exceptions.ProtocolError, urllib3.exceptions.IncompleteRead)):
        ask()
    assert [data for _path, data in site.got] == [BODY]


def test_request_is_cut_in_the_middle_of_its_body(site, ask):
    site.faults.replace([{"action": "Put", "cut_request_bytes": 1000}])
    with pytest.raises(urllib3.exceptions.ProtocolError):
        ask()
    assert all(len(data) <= 1000 for _path, data in site.got)


def test_byte_is_changed_on_the_way(site, ask):
    site.faults.replace([{"action": "Put", "corrupt": True}])
    ask()
    assert site.got[0][1][1:] == BODY[1:]
    assert (site.got[0][1] != BODY) == (ask.place == "behind")


@pytest.mark.parametrize(("stall", "count"), [("read", 0), ("done", 1)])
def test_request_that_stalls_is_left_by_the_client(site, ask, stall, count):
    site.faults.replace([{"action": "Put", "stall": stall}])
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        ask(timeout=0.2)
    assert len(site.got) == count


def test_client_that_leaves_in_the_middle_is_left_by_the_gateway_too(site):
    with socket.create_connection(("127.0.0.1", site.ports["behind"])) as client:
        client.sendall(b"PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
        wait_for(lambda: site.coming == b"half")
    wait_for(lambda: site.got)
    assert site.got == [("/x", b"half")]


def test_head_has_the_length_of_what_is_not_sent(site, ask):
    answer = ask("HEAD", body=None)
    assert (answer.status, answer.data) == (200, b"")


def test_fault_that_there_is_not_is_refused(site):
    with pytest.raises(ValueError, match="'never' is not a valid Stall"):
        site.faults.replace([{"action": "Put", "stall": "never"}])
