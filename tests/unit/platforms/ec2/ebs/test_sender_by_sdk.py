"""Behind a proxy the SDK sends the blocks; its errors end like the engine's own."""

import contextlib
import dataclasses
import signal
import socket
import threading
import time
import types

import boto3
import botocore.config
import botocore.exceptions
import pytest
from botocore.session import Session
from fakes.ebs_server import BLOCK_BYTES, Blocks, FakeEbs, HangUp, checksum_of, make_block

from clouduploader.errors import (
    CredentialsError,
    DeniedError,
    ImageError,
    NetworkError,
    PlatformReplyError,
    StoppedError,
)
from clouduploader.platforms.ec2 import boto, endpoint
from clouduploader.platforms.ec2.context import Ec2Context
from clouduploader.platforms.ec2.ebs import sender
from clouduploader.platforms.ec2.ebs.transfer import BlockTimeouts
from clouduploader.platforms.ec2.settings import Ec2Settings
from clouduploader.platforms.ec2.sigv4 import AccessKeys
from clouduploader.plugin.transfer import ConfirmedChunks, threads
from clouduploader.util.cancel import Cancel
from clouduploader.util.clock import Clock

HASTY = BlockTimeouts(tries=3, pause_seconds=0.01, max_pause_seconds=0.05, tick_seconds=0.02)
KEYS = AccessKeys("AKIAEXAMPLE", "sesame")


@pytest.fixture
def make_server():
    """A factory of a FakeEbs that is a proxy as well: it takes whole URLs."""
    with contextlib.ExitStack() as stack:

        def make(*arguments, **options):
            server = FakeEbs(*arguments, **options)
            stack.callback(server.close)
            return server

        yield make


@pytest.fixture
def send(tmp_path, record):
    """A function that sends blocks through a proxy to an endpoint that does not exist."""

    def run(blocks, proxy, *, cancel=None, timeouts=HASTY):
        source = blocks if isinstance(blocks, Blocks) else Blocks(blocks)
        place = endpoint.parse("http://127.0.0.1:9", origin="a test")
        account = types.SimpleNamespace(
            region="eu-west-1",
            keys=lambda: KEYS,
            ebs=lambda **options: make_client(proxy, **options),
            route=lambda _client: endpoint.ProxyRoute(
                place=place, region="eu-west-1", authorities="/none", proxy=proxy
            ),
        )
        ctx = types.SimpleNamespace(cancel=cancel or Cancel(), clock=Clock(), reporter=record, client=account)
        with ConfirmedChunks(tmp_path / "confirmed", BLOCK_BYTES) as confirmed:
            try:
                sender.send(
                    Ec2Context(ctx, Ec2Settings(connections=4)),
                    source,
                    snapshot_id="snap-0123456789abcdef0",
                    confirmed=confirmed,
                    total_bytes=None,
                    timeouts=timeouts,
                )
            finally:
                run.count = confirmed.count

    return run


def make_client(proxy, **options):
    config = botocore.config.Config(proxies={"http": proxy}, **options)
    session = boto3.Session(KEYS.access_key_id, KEYS.secret_access_key, region_name="eu-west-1")
    return session.client("ebs", endpoint_url="http://127.0.0.1:9", config=config)


def some_blocks():
    return {index: make_block(index) for index in range(10)}


def test_blocks_arrive_whole(make_server, send, record):
    server = make_server()
    send(some_blocks(), server.url)
    assert server.blocks == some_blocks()
    assert send.count == 10
    assert any("proxy" in line for line in record.lines)
    assert server.exchanges[0].path.startswith("http://127.0.0.1:9/snapshots/snap-0123456789abcdef0/blocks/")


def hang_up(_exchange):
    raise HangUp


PASSING = {
    "closed connection": hang_up,
    "500": lambda exchange: exchange.refuse(500, "InternalServerException"),
    "throttle": lambda exchange: exchange.refuse(400, "RequestThrottledException", reason="ACCOUNT_THROTTLED"),
    "another checksum": lambda exchange: exchange.answer(201, headers={"x-amz-Checksum": checksum_of(b"other")}),
    "not there yet": lambda exchange: exchange.refuse(404, "ResourceNotFoundException", reason="SNAPSHOT_NOT_FOUND"),
    "token expired": lambda exchange: exchange.refuse(403, "ExpiredTokenException"),
}


@pytest.mark.parametrize("trouble", PASSING)
def test_passing_trouble_is_tried_again(make_server, send, trouble):
    def plan(exchange):
        if exchange.try_number == 1 and exchange.index % 3 == 0:
            PASSING[trouble](exchange)
        else:
            exchange.confirm()

    server = make_server(plan)
    send(some_blocks(), server.url)
    assert server.blocks == some_blocks()
    assert send.count == 10


@pytest.mark.parametrize(
    ("action", "kind", "words"),
    [
        (lambda exchange: exchange.refuse(403, "AccessDeniedException"), DeniedError, "ebs:PutSnapshotBlock"),
        (PASSING["token expired"], CredentialsError, "expired"),
        (PASSING["another checksum"], PlatformReplyError, "another checksum"),
        (hang_up, NetworkError, "can't be reached"),
        (
            lambda exchange: exchange.refuse(400, "ValidationException", reason="INVALID_BLOCK"),
            PlatformReplyError,
            "INVALID_BLOCK",
        ),
    ],
)
def test_final_trouble_ends_it(make_server, send, action, kind, words):
    server = make_server(action)
    with pytest.raises(kind, match=words):
        send(some_blocks(), server.url)
    assert not [one for one in threading.enumerate() if one.name.startswith(threads.NAME)]


def test_sdk_sends_each_try_once(make_server, send):
    server = make_server(hang_up)
    with pytest.raises(NetworkError):
        send({0: make_block(1)}, server.url)
    assert len(server.exchanges) == HASTY.tries


def test_client_has_the_timeouts_of_the_transfer(record):
    options = sender.client_options(BlockTimeouts())
    config = boto.client(
        "ebs", region="eu-west-1", reporter=record, keys=KEYS, session=Session(), options=options
    ).meta.config
    assert (config.connect_timeout, config.read_timeout) == (
        BlockTimeouts().connect_seconds,
        BlockTimeouts().silence_seconds,
    )
    assert (config.retries["total_max_attempts"], config.max_pool_connections) == (1, 128)


@pytest.fixture
def silent_proxy():
    """A proxy that accepts connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_stop_ends_it_though_the_proxy_does_not_answer(silent_proxy, send):
    cancel = Cancel()
    threading.Timer(0.3, cancel.request, [signal.SIGTERM]).start()
    began = time.monotonic()
    with pytest.raises(StoppedError):
        send(some_blocks(), silent_proxy, cancel=cancel, timeouts=dataclasses.replace(HASTY, silence_seconds=4))
    assert time.monotonic() - began < 0.3 + threads.LEAVE_SECONDS + 1.2
    assert send.count == 0


def test_silence_ends_a_try(silent_proxy, send):
    timeouts = dataclasses.replace(HASTY, tries=2, silence_seconds=0.2, connect_seconds=0.2)
    with pytest.raises(NetworkError):
        send({0: make_block(1)}, silent_proxy, timeouts=timeouts)


def test_error_of_the_image_ends_it(make_server, send):
    server = make_server()
    with pytest.raises(ImageError):
        send(Blocks(some_blocks(), error_at=5, error=ImageError("cut off")), server.url)


def test_stop_ends_it(make_server, send):
    cancel = Cancel()

    def plan(exchange):
        exchange.confirm()
        if exchange.number == 5:
            cancel.request(signal.SIGTERM)

    server = make_server(plan)
    with pytest.raises(StoppedError):
        send(dict.fromkeys(range(500), make_block(1)), server.url, cancel=cancel)
    assert len(server.exchanges) < 100


def test_resumed_transfer_sends_only_what_is_missing(make_server, send):
    blocks = some_blocks()
    server = make_server()
    send({index: blocks[index] for index in range(4)}, server.url)
    send(blocks, server.url)
    assert sorted(server.received) == sorted(blocks)
