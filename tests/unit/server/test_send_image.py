"""Images that are sent: whole, by ranges, and to clients that take nothing or may have no more."""

import asyncio
import dataclasses
import hashlib
import random
import socket

import pytest
from aiohttp import web
from fakes import running_server
from fakes.waiting import wait_for

from clouduploader.errors import DeniedError
from clouduploader.server import send_image, settings
from clouduploader.store import config

IMAGE = random.Random(5).randbytes(3_000_001)  # noqa: S311 no secret
SHA256 = hashlib.sha256(IMAGE).hexdigest()
LARGE_BYTES = 64 << 20  # more than any socket takes
PATIENCE_SECONDS = 60


class Exchange:
    """Sends images by a server of its own; `answered` is how the last one ended, None for well."""

    def __init__(self, path, source, check=lambda: None):
        self._path, self._source, self._check = path, source, check
        self.answered = None

    def ask(self, head, take=lambda client: b"".join(iter(lambda: client.recv(65_536), b""))):
        """Send the head of a request, and return what `take` gets of the answer from its socket."""
        return asyncio.run(self._ask(head, take))

    async def _ask(self, head, take):
        sender, ended = send_image.ImageSender(self._source), asyncio.Event()

        async def handle(request):
            try:
                with self._path.open("rb", buffering=0) as image:
                    return await sender.answer(request, image, sha256=SHA256, check=self._check)
            except send_image.RefusalError as exc:
                refusal = web.Response(status=exc.status, text=exc.message, headers=exc.headers)
                refusal.force_close()
                return refusal
            except ConnectionError as exc:
                self.answered = str(exc)
                raise
            finally:
                ended.set()

        app = web.Application()
        app.router.add_route("*", "/", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()

        def talk():
            with socket.create_connection(runner.addresses[0], PATIENCE_SECONDS) as client:
                client.sendall(f"{head}\r\nHost: obs\r\n\r\n".encode())
                return take(client)

        try:
            found = await asyncio.to_thread(talk)
            await asyncio.wait_for(ended.wait(), PATIENCE_SECONDS)
            return found
        finally:
            await runner.cleanup()
            sender.close()


@pytest.fixture
def source(tmp_path):
    loaded = config.load(home=tmp_path, spool=tmp_path, environment={})
    return settings.SettingsSource(lambda: settings.load({}, loaded.path))


@pytest.fixture
def exchange(tmp_path, source):
    path = tmp_path / "image"
    path.write_bytes(IMAGE)
    return Exchange(path, source)


def ask(exchange, method="GET", *headers):
    status, lines, body = running_server.parse(exchange.ask("\r\n".join([f"{method} / HTTP/1.1", *headers])))
    return int(status[:3]), dict(line.split(": ", 1) for line in lines), body


def test_whole_image_comes_with_its_digest(exchange):
    status, headers, body = ask(exchange)
    assert (status, body) == (200, IMAGE)
    assert headers["ETag"] == f'"{SHA256}"'
    assert headers["Accept-Ranges"] == "bytes"
    assert exchange.answered is None


def test_head_has_the_size_alone(exchange):
    status, headers, body = ask(exchange, "HEAD", "Range: bytes=5-9")
    assert (status, headers["Content-Length"], body) == (200, str(len(IMAGE)), b"")


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=2999999-", 2_999_999, 3_000_001),
        ("Bytes=5-9999999999", 5, 3_000_001),
        ("bytes=-7", 2_999_994, 3_000_001),
        ("bytes=-9999999999", 0, 3_000_001),
    ],
)
def test_range_is_sent_alone(exchange, wanted, start, end):
    status, headers, body = ask(exchange, "GET", f"Range: {wanted}")
    assert (status, body) == (206, IMAGE[start:end])
    assert headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(IMAGE)}"


@pytest.mark.parametrize(
    "wanted",
    ["bytes=9-5", "bytes=a-b", "bytes=-", "bytes=1-2,5-6", "lines=1-2", "bytes=1-2x", "bytes=" + "9" * 30 + "-"],
)
def test_what_is_no_single_range_gives_the_whole_image(exchange, wanted):
    assert ask(exchange, "GET", f"Range: {wanted}")[0] == 200


@pytest.mark.parametrize("wanted", ["bytes=3000001-", "bytes=3000001-4000000", "bytes=-0"])
def test_range_behind_the_end_is_refused(exchange, wanted):
    status, headers, _ = ask(exchange, "GET", f"Range: {wanted}")
    assert (status, headers["Content-Range"]) == (416, f"bytes */{len(IMAGE)}")


def test_range_of_this_image_is_sent(exchange):
    assert ask(exchange, "GET", "Range: bytes=5-9", f'If-Range: "{SHA256}"')[::2] == (206, IMAGE[5:10])


@pytest.mark.parametrize("other", ['"another"', f'W/"{SHA256}"', "Sun, 29 Nov 2026 21:00:00 GMT"])
def test_range_of_another_image_gives_all_of_this_one(exchange, other):
    assert ask(exchange, "GET", "Range: bytes=5-9", f"If-Range: {other}")[::2] == (200, IMAGE)


@pytest.fixture
def large(tmp_path, monkeypatch, source):
    """Give a function that makes an exchange with an image that no client has at once."""
    monkeypatch.setattr(send_image, "CHECK_SECONDS", 0.01)
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(LARGE_BYTES)
    return lambda check=lambda: None: Exchange(path, source, check)


def test_client_that_takes_nothing_is_dropped(large, source):
    source.current = dataclasses.replace(source.current, idle_seconds=0)
    exchange = large()
    exchange.ask("GET / HTTP/1.1", lambda _: wait_for(lambda: exchange.answered))
    assert exchange.answered == "the client took nothing for too long"


def test_client_that_may_have_no_more_gets_no_more(large):
    def check():
        raise DeniedError("the lease is over")

    exchange = large(check)
    exchange.ask("GET / HTTP/1.1", lambda _: wait_for(lambda: exchange.answered))
    assert exchange.answered == "the lease is over"


def test_client_that_goes_away_ends_the_sending(large):
    exchange = large()
    exchange.ask("GET / HTTP/1.1", lambda client: client.recv(1))
    assert exchange.answered


def test_image_that_becomes_shorter_ends_the_answer(large, tmp_path):
    exchange = large()

    def take(client):
        client.recv(1)
        (tmp_path / "large").write_bytes(b"")
        return sum(map(len, iter(lambda: client.recv(1 << 20), b"")))

    assert exchange.ask("GET / HTTP/1.1", take) < LARGE_BYTES
    assert exchange.answered == "the image has become shorter"


def test_turn_ends_while_more_could_be_sent(tmp_path, source, monkeypatch):
    """A fast client leaves its thread to others: all of the image comes by several turns."""
    monkeypatch.setattr(send_image, "TURN_BYTES", 100_000)
    (tmp_path / "image").write_bytes(IMAGE)
    assert ask(Exchange(tmp_path / "image", source))[2] == IMAGE
