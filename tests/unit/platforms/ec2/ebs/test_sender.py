"""The sender against a small server on loopback that fails in every way."""

import contextlib
import dataclasses
import datetime
import email.utils
import signal
import socket
import threading
import time
import types
from pathlib import Path

import botocore.httpsession
import pytest
from fakes.authority import make_authority
from fakes.ebs_server import BLOCK_BYTES, Blocks, FakeEbs, HangUp, checksum_of, make_block

from clouduploader.errors import (
    ConfigError,
    CredentialsError,
    DeniedError,
    ImageError,
    LocalIOError,
    NetworkError,
    PlatformReplyError,
    StoppedError,
    TransientError,
)
from clouduploader.platforms.ec2 import endpoint
from clouduploader.platforms.ec2.auth import RenewedCredentials
from clouduploader.platforms.ec2.context import Ec2Context
from clouduploader.platforms.ec2.ebs import sender
from clouduploader.platforms.ec2.ebs.transfer import BlockTimeouts
from clouduploader.platforms.ec2.settings import Ec2Settings
from clouduploader.platforms.ec2.sigv4 import AccessKeys
from clouduploader.plugin import BytesMoved
from clouduploader.plugin.transfer import ConfirmedChunks, ContentChangedError, threads
from clouduploader.util.cancel import Cancel
from clouduploader.util.clock import Clock

PATIENT = BlockTimeouts(pause_seconds=0.01, max_pause_seconds=0.05, tick_seconds=0.02)
HASTY = BlockTimeouts(
    connect_seconds=0.5,
    silence_seconds=0.5,
    stall_seconds=30,
    tries=4,
    pause_seconds=0.01,
    max_pause_seconds=0.05,
    tick_seconds=0.02,
)
RESOLUTE = dataclasses.replace(PATIENT, tries=4)
KEYS = AccessKeys("AKIAEXAMPLE", "sesame", "tok/en")
BOTH = pytest.mark.parametrize("can_reread", [True, False])


def count_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """No thread of ours and no descriptor outlives a transfer."""
    before = count_descriptors()
    yield
    assert not [one for one in threading.enumerate() if one.name.startswith(threads.NAME)]
    assert count_descriptors() <= before


@pytest.fixture
def make_server():
    """A factory of a FakeEbs."""
    with contextlib.ExitStack() as stack:

        def make(*arguments, **options):
            server = FakeEbs(*arguments, **options)
            stack.callback(server.close)
            return server

        yield make


class Account:
    """The way into an account whose EBS direct API is at that URL."""

    region = "eu-west-1"

    def __init__(self, url, keys=None, authorities=None):
        self.keys = keys or (lambda: KEYS)
        self._route = endpoint.ProxyRoute(
            place=endpoint.parse(url, origin="a test"),
            region=self.region,
            authorities=str(authorities or botocore.httpsession.where()),
        )

    def ebs(self, **options):
        assert not options, "there is no proxy"

    def route(self, _client):
        return self._route


def make_context(account, reporter, cancel=None, connections=4):
    """What an upload gives to the sender."""
    ctx = types.SimpleNamespace(cancel=cancel or Cancel(), clock=Clock(), reporter=reporter, client=account)
    return Ec2Context(ctx, Ec2Settings(connections=connections))


@pytest.fixture
def send(tmp_path, record):
    """A function that sends blocks; its attributes say what became of it."""

    def run(blocks, url, *, connections=4, timeouts=PATIENT, authorities=None, keys=None, cancel=None, **options):
        source = blocks if isinstance(blocks, Blocks) else Blocks(blocks, **options)
        context = make_context(Account(url, keys, authorities), record, cancel, connections)
        with ConfirmedChunks(tmp_path / "confirmed", BLOCK_BYTES) as confirmed:
            try:
                sender.send(
                    context,
                    source,
                    snapshot_id="snap-0123456789abcdef0",
                    confirmed=confirmed,
                    total_bytes=None,
                    timeouts=timeouts,
                )
            finally:
                run.count = confirmed.count
                run.confirmed = {index for index in range(1000) if confirmed.confirmed(index)}

    return run


def some_blocks(count=12):
    """Blocks with a gap, and zeros at both ends."""
    return {index: make_block(index) for index in range(count) if index != 5} | {count: make_block(0)}


@BOTH
def test_blocks_arrive_whole(make_server, send, record, can_reread):
    server = make_server()
    send(some_blocks(), server.url, can_reread=can_reread)
    assert server.blocks == some_blocks()
    assert len(server.received) == len(some_blocks()) == send.count
    assert send.confirmed == set(some_blocks())
    assert record.events[-1] == BytesMoved(len(some_blocks()) * BLOCK_BYTES, None)


@BOTH
def test_blocks_arrive_whole_over_tls(make_server, send, tmp_path, can_reread):
    context, ca = make_authority(tmp_path / "pki")
    server = make_server(context=context)
    send(some_blocks(), server.url, authorities=ca, can_reread=can_reread)
    assert server.blocks == some_blocks()


def test_image_without_blocks_is_done_at_once(make_server, send):
    server = make_server()
    send({}, server.url)
    assert (server.connections, send.count) == (0, 0)


def test_request_says_what_the_api_asks_for(make_server, send):
    server = make_server()
    send({7: make_block(1)}, f"{server.url}/prefix/")
    (exchange,) = server.exchanges
    assert exchange.path == "/prefix/snapshots/snap-0123456789abcdef0/blocks/7"
    headers = exchange.headers
    assert headers["x-amz-checksum-algorithm"] == "SHA256"
    assert headers["x-amz-data-length"] == str(BLOCK_BYTES)
    assert headers["x-amz-security-token"] == "tok/en"
    assert headers["host"] == f"127.0.0.1:{server.port}"


def test_connections_are_kept_and_few(make_server, send):
    server = make_server()
    send(some_blocks(40), server.url, connections=3)
    assert server.connections <= 3


def test_connection_that_the_server_closes_is_replaced(make_server, send):
    server = make_server(lambda exchange: exchange.confirm(Connection="close"))
    send(some_blocks(), server.url)
    assert sorted(server.received) == sorted(some_blocks())


def test_http_1_0_is_understood(make_server, send):
    def plan(exchange):
        exchange.send(f"HTTP/1.0 201 OK\r\nx-amz-checksum: {exchange.headers['x-amz-checksum']}\r\n\r\n".encode())
        raise HangUp

    server = make_server(plan)
    send(some_blocks(), server.url)
    assert sorted(server.received) == sorted(some_blocks())


def fail_first(action):
    """A plan that fails in some way at the first try of each third block."""

    def plan(exchange):
        if exchange.try_number == 1 and exchange.index % 3 == 0:
            action(exchange)
        else:
            exchange.confirm()

    return plan


def hang_up(_exchange):
    raise HangUp


def answer_half(exchange):
    exchange.send(b"HTTP/1.1 201 Created\r\nx-amz-Chec")
    raise HangUp


def answer_half_a_body(exchange):
    exchange.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 1000\r\n\r\n{")
    raise HangUp


def answer_for_ever(exchange):
    for _ in range(10_000):
        exchange.send(b"X: " + b"y" * 1000 + b"\r\n")


def claim_another_checksum(exchange):
    exchange.answer(201, headers={"x-amz-Checksum": checksum_of(b"other")})


PASSING = {
    "closed connection": hang_up,
    "half an answer": answer_half,
    "half a body": answer_half_a_body,
    "garbage": lambda exchange: exchange.send(b"\x16\x03\x01garbage\r\n\r\n"),
    "endless headers": lambda exchange: (exchange.send(b"HTTP/1.1 201 Created\r\n"), answer_for_ever(exchange)),
    "endless status": lambda exchange: exchange.send(b"HTTP/1.1 201 " + b"x" * 100_000),
    "another checksum": claim_another_checksum,
    "no checksum": lambda exchange: exchange.answer(201),
    "200": lambda exchange: exchange.answer(200, headers={"x-amz-Checksum": exchange.headers["x-amz-checksum"]}),
    "500": lambda exchange: exchange.refuse(500, "InternalServerException"),
    "503 without words": lambda exchange: exchange.answer(503, body=b"<html>"),
    "a stranger's 403": lambda exchange: exchange.answer(403, body=b"<html>Log in</html>"),
    "account throttle": lambda exchange: exchange.refuse(400, "ThrottlingException"),
    "snapshot throttle": lambda exchange: exchange.refuse(
        400, "RequestThrottledException", reason="RESOURCE_LEVEL_THROTTLE"
    ),
    "not there yet": lambda exchange: exchange.refuse(404, "ResourceNotFoundException", reason="SNAPSHOT_NOT_FOUND"),
    "not valid yet": lambda exchange: exchange.refuse(400, "ValidationException", reason="INVALID_SNAPSHOT_ID"),
    "too slow": lambda exchange: exchange.refuse(400, "ValidationException", reason="WRITE_REQUEST_TIMEOUT"),
    "still being written": lambda exchange: exchange.refuse(
        400, "ValidationException", reason="CONFLICTING_BLOCK_UPDATE"
    ),
    "token expired": lambda exchange: exchange.refuse(403, "ExpiredTokenException"),
}


@BOTH
@pytest.mark.parametrize("trouble", PASSING)
def test_passing_trouble_is_tried_again(make_server, send, trouble, can_reread):
    server = make_server(fail_first(PASSING[trouble]))
    send(some_blocks(), server.url, can_reread=can_reread)
    assert server.blocks == some_blocks()
    assert send.confirmed == set(some_blocks())
    tries = {index: server.received.count(index) for index in some_blocks()}
    assert all(tries[index] == (2 if index % 3 == 0 else 1) for index in tries)


@BOTH
def test_hanging_up_before_the_body_is_tried_again(make_server, send, can_reread):
    server = make_server(before_body=lambda exchange: exchange.try_number == 1 and exchange.index % 3 == 0)
    send(some_blocks(), server.url, can_reread=can_reread)
    assert server.blocks == some_blocks()


def test_early_refusal_is_heard(make_server, send):
    def before_body(exchange):
        exchange.refuse(403, "AccessDeniedException")
        return True

    server = make_server(before_body=before_body)
    with pytest.raises(DeniedError, match="ebs:PutSnapshotBlock"):
        send(some_blocks(), server.url)


def test_early_confirmation_is_not_believed(make_server, send):
    def before_body(exchange):
        if exchange.try_number == 1:
            exchange.confirm()
        return exchange.try_number == 1

    server = make_server(before_body=before_body, is_narrow=True)
    send({1: make_block(1)}, server.url)
    assert [exchange.body is not None for exchange in server.exchanges] == [False, True]


@BOTH
@pytest.mark.parametrize("is_read", [True, False])
def test_server_that_never_answers_is_left(make_server, send, is_read, can_reread):
    def maybe_wait(exchange):
        if exchange.try_number == 1 and exchange.index % 3 == 0:
            server.wait()
        if is_read:
            exchange.confirm()

    server = make_server(maybe_wait) if is_read else make_server(before_body=maybe_wait)
    send(some_blocks(), server.url, timeouts=HASTY, connections=8, can_reread=can_reread)
    assert server.blocks == some_blocks()


@BOTH
@pytest.mark.parametrize("is_tls", [False, True])
def test_stalled_connections_hold_up_nobody(make_server, send, tmp_path, can_reread, is_tls):
    """More connections than there are buffers accept nothing, while the other blocks go through."""
    others = threading.Event()
    arrived = []

    def before_body(exchange):
        if 20 <= exchange.index < 44:  # the window has grown to all connections by then
            assert others.wait(60)

    def plan(exchange):
        exchange.confirm(Connection="close")  # on an old one the kernel would take a whole block
        arrived.append(exchange.index)
        if len(arrived) >= 34:  # two threads may have read a block each that waits for a connection
            others.set()

    context, ca = make_authority(tmp_path / "pki") if is_tls else (None, "")
    server = make_server(plan, before_body=before_body, is_narrow=True, context=context)
    blocks = {index: make_block(index + 1) for index in range(60)}
    source = Blocks(blocks, can_reread=can_reread)
    send(source, server.url, connections=32, authorities=ca)
    assert set(arrived[:34]) < {*range(20), *range(44, 60)}
    assert server.blocks == blocks
    assert len(server.exchanges) == len(blocks)
    assert bool(source.rereads) == can_reread  # there are fewer buffers than stalled connections


def test_late_answers_hold_up_nobody(make_server, send):
    late = threading.Event()
    was_last = []

    def plan(exchange):
        if exchange.index == 0:
            was_last.append(late.wait(30))  # until all others are there
        exchange.confirm()
        if len(server.received) == 20:
            late.set()

    server = make_server(plan)
    send(dict.fromkeys(range(20), make_block(1)), server.url, connections=4)
    assert was_last == [True]
    assert send.count == 20


def test_slow_line_is_no_stall(make_server, send):
    """Bytes that move, however slowly, are progress: the block takes longer than the silence that is allowed."""

    def before_body(exchange):
        left = BLOCK_BYTES
        while left:
            time.sleep(0.08)
            left -= len(exchange.reader.read(min(left, 16384)))
        exchange.confirm()
        return True

    server = make_server(before_body=before_body, is_narrow=True)
    send({1: make_block(1)}, server.url, timeouts=dataclasses.replace(HASTY, silence_seconds=1.0))
    assert len(server.exchanges) == 1


FINAL = {
    "denied": (403, "AccessDeniedException", None, DeniedError, "ebs:PutSnapshotBlock"),
    "unknown key": (403, "UnrecognizedClientException", None, CredentialsError, "credentials"),
    "wrong signature": (403, "InvalidSignatureException", None, PlatformReplyError, "InvalidSignatureException"),
    "no such block": (400, "ValidationException", "INVALID_BLOCK", PlatformReplyError, "INVALID_BLOCK"),
    "quota": (402, "ServiceQuotaExceededException", "DEPENDENCY_SERVICE_QUOTA_EXCEEDED", PlatformReplyError, "quota"),
}


@pytest.mark.parametrize("case", FINAL)
def test_final_refusal_ends_it_at_once(make_server, send, case):
    status, code, reason, kind, words = FINAL[case]
    server = make_server(lambda exchange: exchange.refuse(status, code, reason=reason))
    with pytest.raises(kind, match=words) as caught:
        send(dict.fromkeys(range(500), make_block(1)), server.url)
    assert len(server.exchanges) < 50
    assert "sesame" not in str(caught.value)


def test_first_decisive_error_counts_and_confirmed_blocks_stay(make_server, send):
    def plan(exchange):
        if exchange.number > 10:
            exchange.refuse(403, "AccessDeniedException")
        else:
            exchange.confirm()

    server = make_server(plan)
    with pytest.raises(DeniedError):
        send(dict.fromkeys(range(100), make_block(1)), server.url)
    assert send.confirmed <= set(server.received[:20])
    assert send.confirmed


@pytest.mark.parametrize(
    ("action", "kind", "words"),
    [
        (hang_up, NetworkError, "closed without one"),
        (PASSING["500"], TransientError, "InternalServerException"),
        (PASSING["another checksum"], PlatformReplyError, "another checksum"),
        (PASSING["a stranger's 403"], TransientError, "HTTP 403"),
        (PASSING["garbage"], NetworkError, "makes no sense"),
    ],
)
def test_trouble_without_end_ends_it(make_server, send, action, kind, words):
    server = make_server(action)
    with pytest.raises(kind, match=words):
        send({1: make_block(1)}, server.url, timeouts=RESOLUTE)
    assert len(server.exchanges) == RESOLUTE.tries


def test_throttling_without_end_ends_in_a_stall(make_server, send):
    server = make_server(PASSING["snapshot throttle"])
    timeouts = dataclasses.replace(PATIENT, stall_seconds=0.7)
    with pytest.raises(NetworkError, match="last seen: RequestThrottledException RESOURCE_LEVEL_THROTTLE") as caught:
        send(some_blocks(), server.url, timeouts=timeouts)
    assert "With keep = snapshot another one goes on" in caught.value.hint


def test_snapshot_that_is_gone_later_ends_it(make_server, send):
    server = make_server(PASSING["not there yet"])
    timeouts = dataclasses.replace(PATIENT, appearance_seconds=0.3)
    with pytest.raises(PlatformReplyError, match="gone"):
        send(some_blocks(), server.url, timeouts=timeouts)


def test_nobody_at_the_port_is_an_error(send):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(NetworkError, match="can't be reached: Connection refused"):
        send(some_blocks(), url, timeouts=RESOLUTE)


def test_plain_server_at_a_tls_endpoint_is_an_error(make_server, send):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answering = threading.Thread(target=answer_plainly, args=(listener, RESOLUTE.tries))
        answering.start()
        with pytest.raises(NetworkError, match="can't be reached"):
            send({1: make_block(1)}, f"https://127.0.0.1:{listener.getsockname()[1]}", timeouts=RESOLUTE)
        answering.join()


def answer_plainly(listener, times):
    for _ in range(times):
        with listener.accept()[0] as sock:
            sock.recv(100)
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_unknown_authority_is_refused_at_once(make_server, send, tmp_path):
    context, _ca = make_authority(tmp_path / "pki")
    _context, other_ca = make_authority(tmp_path / "other")
    server = make_server(context=context)
    with pytest.raises(ConfigError, match=r"certificate of https.* is not to be trusted: .*issuer"):
        send(some_blocks(), server.url, authorities=other_ca)
    assert not server.exchanges


def test_certificate_for_another_host_is_refused_at_once(make_server, send, tmp_path):
    context, ca = make_authority(tmp_path / "pki", host="ebs.example")
    server = make_server(context=context)
    with pytest.raises(ConfigError, match="IP address mismatch"):
        send(some_blocks(), server.url, authorities=ca)
    assert not server.exchanges


def test_missing_bundle_is_an_error_of_the_configuration(make_server, send, tmp_path):
    with pytest.raises(ConfigError, match=r"authorities can't be read: .*none.pem: No such file"):
        send(some_blocks(), "https://127.0.0.1:9", authorities=tmp_path / "none.pem")


def test_expired_token_is_renewed(make_server, send):
    given = [KEYS, AccessKeys("AKIANEW", "secret", "new/token")]

    def plan(exchange):
        if exchange.headers["x-amz-security-token"] == "tok/en":
            exchange.refuse(403, "ExpiredTokenException")
            is_refused.set()
        else:
            exchange.confirm()

    is_refused = threading.Event()
    server = make_server(plan)
    send(some_blocks(), server.url, keys=lambda: given[is_refused.is_set()])
    assert send.confirmed == set(some_blocks())


def test_token_that_expires_while_others_are_asked_for_is_renewed(make_server, send, record):
    """The wish for new credentials comes while the ones of now can't be had, and is not lost."""
    is_asked, is_refused = threading.Event(), threading.Event()

    class Failing(RenewedCredentials):
        calls = 0

        def __call__(self):
            self.calls += 1
            if self.calls == 2:
                is_asked.set()
                assert is_refused.wait(30)
                time.sleep(0.2)  # until the refusal has been understood
                raise NetworkError("nobody answers")
            return super().__call__()

    def plan(exchange):
        assert is_asked.wait(30)
        if exchange.headers["x-amz-security-token"] == "tok/en":
            exchange.refuse(403, "ExpiredTokenException")
            is_refused.set()
        else:
            exchange.confirm()

    given = [KEYS, AccessKeys("AKIANEW", "secret", "new/token")]
    keys = Failing(lambda: given.pop(0), lambda: datetime.datetime.now(datetime.UTC), record)
    send({1: make_block(1)}, make_server(plan).url, keys=keys, timeouts=dataclasses.replace(PATIENT, stall_seconds=3))
    assert send.confirmed == {1}


def test_token_that_expires_again_at_once_is_renewed_again(make_server, send):
    made = []

    def keys():
        made.append(AccessKeys(f"AKIA{len(made)}", "secret", f"token{len(made)}"))
        return made[-1]

    def plan(exchange):
        seen.append(exchange.headers["x-amz-security-token"])
        if len(set(seen)) <= 3:
            exchange.refuse(403, "ExpiredTokenException")
        else:
            exchange.confirm()

    seen = []
    send({1: make_block(1)}, make_server(plan).url, keys=keys)
    assert send.confirmed == {1}


def test_token_that_stays_expired_ends_it(make_server, send):
    server = make_server(PASSING["token expired"])
    with pytest.raises(CredentialsError, match="expired"):
        send({1: make_block(1)}, server.url)
    assert len(server.exchanges) == 2


def test_credentials_of_now_are_used(make_server, send):
    made = []

    def keys():
        made.append(AccessKeys(f"AKIA{len(made)}", "secret", f"token{len(made)}"))
        return made[-1]

    server = make_server(lambda exchange: (time.sleep(0.05), exchange.confirm()))
    send(some_blocks(), server.url, keys=keys, connections=1)
    assert len({exchange.headers["x-amz-security-token"] for exchange in server.exchanges}) > 2


def test_credentials_that_can_not_be_renewed_end_it(make_server, send):
    calls = []

    def keys():
        calls.append(1)
        if len(calls) > 3:
            raise CredentialsError("the role is gone")
        return KEYS

    server = make_server(lambda exchange: (time.sleep(0.05), exchange.confirm()))
    with pytest.raises(CredentialsError, match="the role is gone"):
        send(dict.fromkeys(range(500), make_block(1)), server.url, keys=keys)


@pytest.mark.parametrize("hours", [-3, 2])
def test_wrong_clock_is_set_by_the_answer(make_server, send, hours):
    theirs = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=hours)

    def plan(exchange):
        signed_at = datetime.datetime.strptime(exchange.headers["x-amz-date"], "%Y%m%dT%H%M%SZ")
        if abs(signed_at.replace(tzinfo=datetime.UTC) - theirs) > datetime.timedelta(minutes=5):
            exchange.refuse(403, "InvalidSignatureException", Date=email.utils.format_datetime(theirs, usegmt=True))
        else:
            exchange.confirm()

    server = make_server(plan)
    send(some_blocks(), server.url)
    assert send.confirmed == set(some_blocks())


def test_clock_that_can_not_be_set_is_told(make_server, send):
    date = "Sun, 22 Nov 2020 17:00:00 GMT"
    server = make_server(lambda exchange: exchange.refuse(403, "InvalidSignatureException", Date=date))
    with pytest.raises(CredentialsError, match="clock"):
        send({1: make_block(1)}, server.url)
    assert len(server.exchanges) == 2


def test_resumed_transfer_sends_only_what_is_missing(make_server, send):
    def plan(exchange):
        if exchange.number > 20:
            exchange.refuse(403, "AccessDeniedException")
        else:
            exchange.confirm()

    blocks = {index: make_block(index) for index in range(40)}
    server = make_server(plan)
    with pytest.raises(DeniedError):
        send(blocks, server.url)
    before = send.confirmed
    assert before
    second = make_server()
    send(blocks, second.url)
    assert not before & set(second.received)
    assert sorted([*before, *second.received]) == sorted(blocks)


def test_changed_block_is_not_resumed(make_server, send):
    server = make_server()
    send({1: make_block(1), 2: make_block(2)}, server.url)
    with pytest.raises(ContentChangedError, match="block 2"):
        send({1: make_block(1), 2: make_block(3)}, server.url)


def test_block_that_became_a_hole_is_not_resumed(make_server, send):
    server = make_server()
    send({1: make_block(1), 2: make_block(2)}, server.url)
    with pytest.raises(ContentChangedError, match="block 2"):
        send({1: make_block(1)}, server.url)


def test_zeros_that_became_a_hole_are_resumed(make_server, send):
    server = make_server()
    send({1: make_block(1), 2: make_block(0)}, server.url)
    send({1: make_block(1)}, server.url)
    assert send.count == 2
    assert len(server.exchanges) == 2


@pytest.mark.parametrize("is_answering", [True, False])
def test_stop_ends_it(make_server, send, is_answering):
    cancel = Cancel()

    def plan(exchange):
        if exchange.number == 5:
            cancel.request(signal.SIGTERM)
        if not is_answering:
            server.wait()
        exchange.confirm()

    server = make_server(plan)
    with pytest.raises(StoppedError) as caught:
        send(dict.fromkeys(range(2000), make_block(1)), server.url, connections=8, cancel=cancel)
    assert caught.value.exit_code == 128 + signal.SIGTERM
    assert len(server.exchanges) < 1000


@pytest.mark.parametrize("error", [ImageError("cut off"), LocalIOError("the disk is gone")])
@BOTH
def test_error_of_the_image_ends_it(make_server, send, error, can_reread):
    server = make_server()
    with pytest.raises(type(error), match=str(error)):
        send(Blocks(some_blocks(), can_reread=can_reread, error_at=8, error=error), server.url)


def test_error_of_the_caller_leaves_no_thread(make_server, send, record):
    server = make_server(lambda exchange: (time.sleep(0.05), exchange.confirm()))

    def interrupt(_event):
        raise KeyboardInterrupt

    record.on_event = interrupt
    with pytest.raises(KeyboardInterrupt):
        send(dict.fromkeys(range(100), make_block(1)), server.url)
    assert len(server.exchanges) < 100


def test_connections_are_few_while_aws_answers_fast(make_server, send):
    server = make_server()
    send(dict.fromkeys(range(200), make_block(1)), server.url, connections=128)
    assert server.connections < 64
