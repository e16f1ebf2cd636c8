"""Clients that want more than there is, on one address and on several: which are dropped, and which answered."""

import contextlib
import socket
import struct
import time
import types

import pytest
from fakes.waiting import wait_for

from clouduploader.errors import ConfigError
from clouduploader.model.job import JobState
from clouduploader.server import settings
from clouduploader.server.network import connections, origin
from clouduploader.server.receive import places
from clouduploader.server.replies import RefusalError

PATIENCE_SECONDS = 60  # only a failing test waits that long
MEBIBYTE = 1 << 20


def connect(server, source="127.0.0.1"):
    return socket.create_connection(server.address, timeout=PATIENCE_SECONDS, source_address=(source, 0))


def is_open(client):
    """Whether the server has not hung up."""
    client.setblocking(False)
    try:
        return bool(client.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def send(client, data):
    """Send as much as the server takes."""
    with contextlib.suppress(ConnectionError):
        client.sendall(data)


def closed_lines(server):
    return [line for line in server.log.getvalue().splitlines() if "a connection of" in line]


def body_head(length):
    return b"POST /cloudupload HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % length


ENDLESS_HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 8000) for n in range(90))
GREEDY = {
    "bodies": body_head(2 * MEBIBYTE) + b"x" * (2 * MEBIBYTE - 1),
    "heads": ENDLESS_HEAD,
    "heads of followers": ENDLESS_HEAD.replace(b"GET / ", b"GET /cloudupload/1/_log ") + b"\r\n",
    "bodies that are not read": b"GET /cloudupload/1/_log HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n"
    + b"x" * 800_000,
    "chunks of a byte": b"POST /cloudupload/1/_log HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"1\r\nx\r\n" * 10_000,
}


@pytest.mark.parametrize("request_bytes", GREEDY.values(), ids=GREEDY)
def test_slow_clients_are_dropped_and_quick_ones_answered(make_spool, make_job, serve, request_bytes):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.UPLOADING, log=b"begun\n", pid=1)
    server = serve(jobs, max_memory="16M")
    with contextlib.ExitStack() as stack:
        follower = stack.enter_context(connect(server))
        follower.sendall(b"GET /cloudupload/1/_log HTTP/1.1\r\nHost: a\r\n\r\n")
        slow = stack.enter_context(connect(server))
        slow.sendall(body_head(3) + b"x")
        greedy = []
        while len(closed_lines(server)) < 3:
            assert len(greedy) < 500
            client = stack.enter_context(connect(server))
            send(client, request_bytes)
            greedy.append(client)
            server.create(details="7b7d" + "20" * 20_000)
        assert sum(map(is_open, greedy)) > 0
        slow.sendall(b"xx")  # a slow client that holds little is not dropped
        assert slow.recv(100).startswith(b"HTTP/1.1 400 ")
        assert follower.recv(100)
        assert is_open(follower)


def test_answers_that_are_not_taken_are_dropped(make_spool, make_job, serve):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.FAILED, log=b"x" * (20 * MEBIBYTE))
    server = serve(jobs, max_memory="16M")
    request = b"GET /cloudupload/1/_log HTTP/1.1\r\nHost: a\r\n\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(130):
            stack.enter_context(connect(server)).sendall(request)
        wait_for(lambda: closed_lines(server))
        # Of another client: one of the same could be the next to be dropped, if this machine is slow.
        reader = stack.enter_context(connect(server, "127.0.0.2"))
        reader.sendall(request)
        answer = b"".join(iter(lambda: reader.recv(65_536), b""))
        assert len(answer.partition(b"\r\n\r\n")[2]) == 20 * MEBIBYTE
    assert "event=error" not in server.log.getvalue()


def test_client_that_holds_most_is_dropped_and_not_another(make_spool, serve):
    """Though the other was there first, and holds each of its few for longer."""
    server = serve(make_spool(), max_memory="16M")
    with contextlib.ExitStack() as stack:
        modest = [stack.enter_context(connect(server, "127.0.0.3")) for _ in range(2)]
        for client in modest:
            client.sendall(body_head(2 * MEBIBYTE) + b"x" * MEBIBYTE)
        for _ in range(40):
            send(stack.enter_context(connect(server, "127.0.0.2")), body_head(2 * MEBIBYTE) + b"x" * MEBIBYTE)
        wait_for(lambda: len(closed_lines(server)) >= 20)
        assert all("of 127.0.0.2 was" in line for line in closed_lines(server))
        assert all(map(is_open, modest))


def test_only_the_first_request_of_a_connection_is_read(make_spool, serve):
    server = serve(make_spool())
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert server.send(request * 100).count(b"HTTP/1.1") == 1
    assert server.log.getvalue().count("event=request") == 1
    name = server.create(size=3)
    put = f"PUT /cloudupload/{name} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".encode()
    assert server.send(put + request).count(b"HTTP/1.1") == 1


def test_client_that_is_not_allowed_is_refused_before_it_sends(make_spool, serve):
    server = serve(make_spool(), allow="127.0.0.2")
    with connect(server) as client:
        answer = b"".join(iter(lambda: client.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.1 403 access denied for 127.0.0.1\r\nContent-Type: text/xml\r\n")
    assert answer.endswith(b"</status>\n")
    assert server.log.getvalue().endswith(' event=info text="access denied for 127.0.0.1"\n')
    with connect(server, "127.0.0.2") as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


def test_many_clients_that_are_not_allowed_take_no_descriptors(make_spool, serve):
    server = serve(make_spool(), allow="127.0.0.2")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(connections.MAX_TURNED_AWAY * 2)]
        for client in clients:
            assert client.recv(12) == b"HTTP/1.1 403"


@pytest.mark.parametrize(
    ("address", "client"),
    [("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
     ("::1", "::/64"), ("fe80::1%lo", "fe80::/64")],
)  # fmt: skip
def test_client_is_an_address_or_a_network_of_64_bits(address, client):
    assert origin.client_of(address) == client


class Handler:
    """As much of a connection as `ConnectionTable` knows."""

    def __init__(self, client):
        self.client, self.held_bytes, self.held_since, self.transport, self.is_open = client, 0, 0.0, None, True
        self.handshake = None
        self.request = self

    def begin(self, _request):
        pass

    def end(self, _answer):
        pass

    def force_close(self):
        self.is_open = False


class Request(dict):
    def __init__(self, handler, path, client=None):
        super().__init__({origin.ORIGIN: types.SimpleNamespace(client=client or handler.client)})
        self.protocol, self.path = handler, path


def table_for(requests):
    descriptors = connections.RESERVED_DESCRIPTORS + requests * (connections.REQUEST_DESCRIPTORS + 1)
    return connections.ConnectionTable(descriptors, lambda: 1)


def test_idle_connections_are_dropped_those_of_the_client_with_most_first():
    table = table_for(4)
    one, *others = [table.admit(Handler(client)) for client in "abbb"]
    table.admit(Handler("c"))
    assert [handler.is_open for handler in (one, *others)] == [True, False, True, True]
    table.forget(one)
    table.admit(Handler("c"))
    assert [handler.is_open for handler in others] == [False, True, True]


def test_idle_connections_that_take_memory_are_dropped_for_others():
    table = connections.ConnectionTable(10_000, lambda: 10, idle_bytes=lambda: 3)
    handlers = [table.admit(Handler("a")) for _ in range(6)]
    assert [handler.is_open for handler in handlers] == [False, False, True, True, True, True]
    table = connections.ConnectionTable(10_000, lambda: 1, idle_bytes=lambda: 3)
    handlers = [table.admit(Handler("a")) for _ in range(2)]
    assert [handler.is_open for handler in handlers] == [False, True]


def test_kept_connections_are_dropped_as_those_that_never_asked():
    table = table_for(2)
    kept = table.admit(Handler("a"))
    for path in ("/1", "/2"):
        table.begin(Request(kept, path))
        table.admit_principal(Request(kept, path))
        others = [table.admit(Handler("a")) for _ in range(3)]  # of whom it is none while it has a request
        assert [handler.is_open for handler in (kept, *others)] == [True, False, True, True]
        for handler in others:
            table.forget(handler)
        table.end(Request(kept, path), None)
        table.keep(kept)
    others = [table.admit(Handler("a")) for _ in range(2)]
    assert [handler.is_open for handler in (kept, *others)] == [False, True, True]
    table.keep(kept)  # it was closed meanwhile
    assert table.admit(Handler("a")).is_open
    assert [handler.is_open for handler in others] == [False, True]


def test_followers_are_dropped_for_requests_and_others_are_not():
    table = table_for(2)

    def ask(path):
        handler = table.admit(Handler("a"))
        table.begin(Request(handler, path))
        table.admit_principal(Request(handler, path))
        return handler

    first, second = ask("/cloudupload/1/_log"), ask("/cloudupload/2/_log")
    shown = ask("/cloudupload/3")
    assert (first.is_open, second.is_open) == (False, True)
    other = ask("/cloudupload/4")
    assert not second.is_open
    with pytest.raises(RefusalError, match="too many requests at once"):
        ask("/cloudupload/5")
    table.end(Request(shown, ""), None)
    assert ask("/cloudupload/6").is_open
    assert other.is_open


def test_requests_of_strangers_are_dropped_for_others():
    """A stranger could take all places by bodies that never come, for minutes each."""
    table = table_for(3)
    one, *others = [table.admit(Handler(client)) for client in "abb"]
    for handler in (one, *others):
        table.begin(Request(handler, "/ui/sign-in"))
    known = table.admit(Handler("c"))
    table.begin(Request(known, "/"))
    table.admit_principal(Request(known, "/"))
    assert [handler.is_open for handler in (one, *others, known)] == [True, False, True, True]


def test_request_by_a_proxy_counts_for_its_client():
    table = table_for(4)
    proxied = [table.admit(Handler("proxy")) for _ in range(3)]
    followers = [(proxied[0], "a"), (proxied[1], "b"), (proxied[2], "b")]
    for handler, client in followers:
        table.hold(handler, 0)
        table.begin(Request(handler, "/cloudupload/1/_log", client))
    assert [handler.client for handler in proxied] == ["a", "b", "b"]
    for _ in range(2):
        table.begin(Request(table.admit(Handler("c")), "/"))
    assert [handler.is_open for handler in proxied] == [True, False, True]  # of b, who has most


def test_slow_image_is_dropped_for_another_and_its_client_told(make_spool, serve, monkeypatch):
    monkeypatch.setattr(places, "RATE_SECONDS", 0.2)
    jobs = make_spool()
    server = serve(jobs, max_transfers="1")
    slow, quick = server.create(size=1_000_000), server.create(size=3)
    with server.connect() as client:
        client.sendall(f"PUT /cloudupload/{slow} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nx".encode())
        wait_for(lambda: jobs.read(slow)[0].state is JobState.RECEIVING)
        wait_for(lambda: server.ask("PUT", f"/cloudupload/{quick}", b"abc")[0] == "200 OK")
        assert client.recv(1000).startswith(b"HTTP/1.1 503 the image came too slowly, and others wait\r\n")
    wait_for(lambda: jobs.read(slow)[1])
    assert jobs.read(slow)[0].details == "the image came too slowly, and others wait"


def test_one_client_leaves_places_for_images_of_others(make_spool, serve):
    jobs = make_spool()
    server = serve(jobs, max_transfers="8")
    names = [server.create(size=3) for _ in range(9)]
    with contextlib.ExitStack() as stack:

        def begin(name, source):
            client = stack.enter_context(connect(server, source))
            client.sendall(f"PUT /cloudupload/{name} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na".encode())
            return client

        for name in names[:7]:
            begin(name, "127.0.0.1")
        wait_for(lambda: all(jobs.read(name)[0].state is JobState.RECEIVING for name in names[:7]))
        assert begin(names[7], "127.0.0.1").recv(1000).startswith(b"HTTP/1.1 503 too many images are on their way in")
        other = begin(names[8], "127.0.0.2")
        other.sendall(b"bc")
        assert other.recv(1000).startswith(b"HTTP/1.1 200 OK")


def test_speed_of_an_image_is_that_of_late(monkeypatch):
    now, here = [0.0], [0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    place = places.Place("a")
    place.begin(lambda: (here[0], 10**9))
    here[0] = 10**8
    assert place.rate(places.RATE_SECONDS / 2) > places.MIN_RATE  # it has just begun
    for step in range(1, 5):
        place.mark(step * places.RATE_SECONDS)
    assert place.rate(5 * places.RATE_SECONDS) == 0
    here[0] = 10**9
    assert place.rate(5 * places.RATE_SECONDS) > places.MIN_RATE  # it is here


@pytest.mark.parametrize(
    ("address", "allow", "warning"),
    [("192.0.2.7", "0.0.0.0/0", "open to the world: every client that reaches 192.0.2.7 from 0.0.0.0/0 may do "),
     ("::", "10.0.0.0/8 ::/0", "open to the world: every client that reaches :: from ::/0 may do everything"),
     ("192.0.2.7", "0.0.0.0/1 128.0.0.0/1", "from 0.0.0.0/1 or 128.0.0.0/1 may do everything"),
     ("192.0.2.7", "", "it listens on 192.0.2.7, and answers this host alone: --allow names others"),
     ("192.0.2.7", "10.1.0.0/16", None), ("127.0.0.1", "0.0.0.0/0", None), ("::1", "", None)],
)  # fmt: skip
def test_settings_warn_of_a_server_that_is_open_to_the_world(tmp_path, address, allow, warning):
    found = settings.load({"allow": allow}, tmp_path).warning(address)
    assert (found is None) == (warning is None)
    assert (warning or "") in (found or "")


@pytest.mark.parametrize(
    ("section", "warning"),
    [({"clients": "10.0.0.0/8"}, None), ({"clients": "127.0.0.9"}, "answers this host alone"),
     ({"clients": "0.0.0.0/0", "allow": "none"}, None),
     ({"clients": "10.0.0.0/8", "clear_tokens": "yes"}, "tokens are taken by http at 192.0.2.7")],
)  # fmt: skip
def test_settings_warn_of_tokens_that_others_can_read(tmp_path, section, warning):
    found = settings.load(section, tmp_path).warning("192.0.2.7")
    assert (found is None) == (warning is None)
    assert (warning or "") in (found or "")


@pytest.mark.parametrize(
    ("section", "complaint"),
    [({"clients": "everywhere"}, "clients is 'everywhere', not a network"),
     ({"clear_tokens": "maybe"}, "clear_tokens is 'maybe', not yes or no"),
     ({"user_jobs": "0"}, "user_jobs is '0', not a number from 1"), ({"user_bytes": "x"}, "user_bytes is 'x'")],
)  # fmt: skip
def test_settings_that_are_wrong_are_named(tmp_path, section, complaint):
    with pytest.raises(ConfigError, match=complaint):
        settings.load(section, tmp_path)


def test_client_that_is_gone_before_its_request_is_read_is_no_fault(make_spool, serve):
    """Its address is not known any more then."""
    server = serve(make_spool())
    for _ in range(50):
        with connect(server) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
    assert server.ask("GET", "/")[0] == "200 OK"
    assert "fault" not in server.log.getvalue()
    assert "Traceback" not in server.log.getvalue()
