"""Whatever a server answers to a call of the SDK: a right answer, or an error of ours, in time."""

import contextlib
import datetime
import gzip
import os
import signal
import socket
import threading

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.errors import ClouduploaderError, DeniedError, NetworkError, PlatformReplyError, TransientError
from clouduploader.platforms.ec2 import boto, exchange
from clouduploader.platforms.ec2.sigv4 import AccessKeys
from clouduploader.plugin import NullReporter
from clouduploader.util import deadline
from clouduploader.util.cancel import Cancel

KEYS = AccessKeys("AKIAEXAMPLE", "sesame", "open")
IMAGES = b"""<?xml version="1.0" encoding="UTF-8"?>
<DescribeImagesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>r</requestId><imagesSet><item>
<imageId>ami-1</imageId><imageState>available</imageState></item></imagesSet></DescribeImagesResponse>"""
STARTED = b'{"SnapshotId": "snap-1", "Status": "pending", "VolumeSize": 1}'
BOMB = (
    b'<!DOCTYPE x [<!ENTITY a0 "%s">' % (b"lol" * 1000)
    + b"".join(b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 10))
    + b"]><DescribeImagesResponse><imagesSet><item><imageId>&a9;</imageId></item></imagesSet></DescribeImagesResponse>"
)


def answer(body, status=b"200 OK", headers=b""):
    return b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s" % (status, headers, len(body), body)


class Script:
    """A server on loopback that gives one answer, in bytes, to each connection in turn; the last one ever after.

    With `pause` it gives them byte by byte. An answer that is a number is kept back.
    """

    def __init__(self, answers, pause=0.0):
        self._answers, self._pause = list(answers), pause
        self._is_over = threading.Event()
        self.count = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def _serve(self):
        while True:
            try:
                sock = self._listener.accept()[0]
            except OSError:
                return
            self.count += 1
            said = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            thread = threading.Thread(target=self._answer, args=(sock, said))
            self._threads.append(thread)
            thread.start()

    def _answer(self, sock, said):
        with contextlib.suppress(OSError), sock:
            data = sock.recv(65536)
            head, _, body = data.partition(b"\r\n\r\n")
            lengths = [line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
            length = int(lengths[0]) if lengths else 0
            while len(body) < length:
                body += sock.recv(65536)
            for place in range(0, len(said), 1 if self._pause else len(said)):
                sock.sendall(said[place : place + 1] if self._pause else said)
                if self._is_over.wait(self._pause):
                    return
            sock.shutdown(socket.SHUT_WR)

    def close(self):
        self._is_over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()


@pytest.fixture
def make_server():
    """A factory of a Script."""
    with contextlib.ExitStack() as stack:

        def make(*answers, **options):
            server = Script(answers, **options)
            stack.callback(server.close)
            return server

        yield make


@pytest.fixture
def ask(record, monkeypatch, sdk_session):
    """A function that makes one call of a server, an API's own: StartSnapshot of EBS, DescribeImages of EC2."""

    def run(url, service="ec2", cancel=None):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        made = boto.client(service, region="eu-west-1", keys=KEYS, session=sdk_session, reporter=record, cancel=cancel)
        with boto.translated("a test"):
            if service == "ebs":
                return made.start_snapshot(VolumeSize=1, ClientToken="4711")["SnapshotId"]
            return made.describe_images(Owners=["self"])["Images"][0]["ImageId"]

    return run


WHOLE = {"ec2": (answer(IMAGES), "ami-1"), "ebs": (answer(STARTED, b"201 Created"), "snap-1")}
CHUNKED = b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(STARTED), STARTED)
MALFORMED = {
    "nothing": b" ",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "status line only": b"HTTP/1.1 200 OK\r\n",
    "head cut in a header": b"HTTP/1.1 200 OK\r\nContent-Ty",
    "head cut in the length": b"HTTP/1.1 200 OK\r\nContent-Length: 4",
    "no length": b"HTTP/1.1 200 OK\r\n\r\n" + IMAGES,
    "length is no number": b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "body cut": answer(IMAGES)[:-9],
    "chunk cut": CHUNKED[:-20],
    "end of chunks cut": CHUNKED[:-7],
    "chunk of no size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "empty body": answer(b""),
    "page of a portal": answer(b"<html><body>Please log in.</body></html>", headers=b"Content-Type: text/html\r\n"),
    "no XML": answer(IMAGES[:-9]),
    "XML that is not UTF-8": answer(IMAGES.replace(b"ami-1", b"\xff\xfe")),
    "bomb": answer(BOMB),
    "deep XML": answer(b"<a>" * 5000 + b"</a>" * 5000),
    "compressed": answer(gzip.compress(IMAGES)),
    "half": answer(IMAGES.replace(b"<imageState>available</imageState>", b"")),
    "odd boolean and time": answer(IMAGES.replace(b"<imageState>", b"<imageState/><imageState>")),
    "JSON": answer(STARTED),
    "JSON cut": answer(STARTED[:-5]),
    "JSON of a list": answer(b"[]"),
    "JSON of other types": answer(b'{"SnapshotId": 4711}'),
    "deep JSON": answer(b"[" * 100_000),
    "redirect": answer(b"", b"302 Found", b"Location: http://127.0.0.1:9/\r\n"),
    "redirect for ever": answer(b"", b"308 Permanent Redirect", b"Location: /\r\n"),
    "not modified": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "early": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "status of no class": answer(b"", b"999 What"),
    "refusal of a proxy": answer(b"<html>Forbidden</html>", b"403 Forbidden", b"Content-Type: text/html\r\n"),
    "error that is a page": answer(b"<html>502</html>", b"502 Bad Gateway"),
    "error cut": answer(b"<Response><Errors><Error><Code>X", b"400 Bad Request"),
    "endless headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000,
    "long header": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
}
RIGHT_FOR = {"ebs": {"JSON"}, "ec2": set()}


@pytest.mark.usefixtures("hasty_sdk")
@pytest.mark.parametrize("service", ["ec2", "ebs"])
@pytest.mark.parametrize("name", [name for name in MALFORMED if name not in ("half", "odd boolean and time")])
def test_malformed_answer_is_asked_for_again(make_server, ask, service, name):
    whole, expected = WHOLE[service]
    server = make_server(MALFORMED[name], whole)
    assert ask(server.url, service) == expected
    assert server.count == (1 if name in RIGHT_FOR[service] else 2)


@pytest.mark.usefixtures("hasty_sdk")
@pytest.mark.parametrize("malformed", ["body cut", "empty body", "half", "error that is a page"])
def test_refusal_after_a_malformed_answer_says_nothing_of_the_first_request(make_server, ask, malformed):
    refusal = b"<Response><Errors><Error><Code>X</Code><Message>No.</Message></Error></Errors></Response>"
    server = make_server(MALFORMED[malformed], answer(refusal, b"400 Bad Request"))
    with pytest.raises(PlatformReplyError) as caught:
        ask(server.url)
    assert (server.count, boto.refusal_code(caught.value)) == (2, "X")
    assert not boto.has_made_nothing(caught.value)


@pytest.mark.usefixtures("hasty_sdk")
@pytest.mark.parametrize("service", ["ec2", "ebs"])
@pytest.mark.parametrize("name", [name for name in MALFORMED if name not in RIGHT_FOR["ebs"]])
def test_answer_that_stays_malformed_may_be_right_later(make_server, ask, service, name):
    server = make_server(MALFORMED[name])
    with pytest.raises(TransientError) as caught:
        ask(server.url, service)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 1000
    assert 2 <= server.count <= 5


@pytest.mark.usefixtures("hasty_sdk")
def test_chunked_answer_is_taken(make_server, ask):
    assert ask(make_server(CHUNKED).url, "ebs") == "snap-1"


@pytest.mark.usefixtures("hasty_sdk")
def test_huge_answer_is_not_taken(make_server, ask, monkeypatch):
    monkeypatch.setattr(exchange, "MAX_BODY_BYTES", 1000)
    with pytest.raises(TransientError, match="more than 1000 bytes"):
        ask(make_server(answer(IMAGES + b" " * 1000)).url)


@pytest.mark.usefixtures("hasty_sdk")
@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"message": {"a": 1}, "code": 5}',
        b'{"Message": ["x"], "__type": "AccessDenied"}',
        b'{"message": "\\u0000\\n' + b"x" * 5000 + b'"}',
    ],
)
def test_odd_refusal_is_one_line(make_server, ask, body):
    with pytest.raises((DeniedError, PlatformReplyError, TransientError)) as caught:
        ask(make_server(answer(body, b"400 Bad Request")).url, "ebs")
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 1000


@hypothesis.settings(max_examples=25)
@hypothesis.given(data=st.data())
def test_any_mutation_of_an_answer_gives_an_image_or_an_error_of_ours(sdk_session, data):
    whole = bytearray(WHOLE["ec2"][0])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    server = Script([bytes(whole) or b" ", WHOLE["ec2"][0]])
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
            patch.setattr(boto, "PAUSE_SECONDS", 0.0)
            patch.setenv("AWS_ENDPOINT_URL", server.url)
            made = boto.client("ec2", region="eu-west-1", keys=KEYS, session=sdk_session, reporter=NullReporter())
            with contextlib.suppress(ClouduploaderError), boto.translated("a test"):
                assert made.describe_images(Owners=["self"])["Images"] is not None
    finally:
        server.close()


def test_answer_that_drips_ends_in_time_and_is_not_asked_for_again(make_server, ask, monkeypatch):
    monkeypatch.setattr(exchange, "SECONDS", 0.5)
    server = make_server(WHOLE["ec2"][0], pause=0.1)
    with pytest.raises(NetworkError, match="for too long"):
        ask(server.url)
    assert server.count == 1


def test_stop_ends_an_answer_that_drips(make_server, ask, monkeypatch):
    monkeypatch.setattr(deadline, "STOPPING_SECONDS", 0.2)
    cancel = Cancel()
    threading.Timer(0.3, cancel.request, [signal.SIGTERM]).start()
    with pytest.raises(NetworkError, match="for too long"):
        ask(make_server(WHOLE["ec2"][0], pause=0.1).url, cancel=cancel)


def test_block_that_is_read_back_is_whole_or_asked_for_again(make_server, record, monkeypatch, sdk_session):
    block = os.urandom(1000)
    head = b"x-amz-Data-Length: 1000\r\nx-amz-Checksum: c\r\nx-amz-Checksum-Algorithm: SHA256\r\n"
    whole = answer(block, headers=head)
    server = make_server(whole[:-500], whole)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    made = boto.client("ebs", region="eu-west-1", keys=KEYS, session=sdk_session, reporter=record)
    found = made.get_snapshot_block(SnapshotId="snap-1", BlockIndex=0, BlockToken="t")
    assert found["BlockData"].read() == block
    assert server.count == 2


NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture(scope="module")
def models(sdk_session):
    """The SDK's model of each API that we call, by its name."""
    return {name: sdk_session.get_service_model(name) for name in ("ec2", "ebs", "sts", "kms")}


def model_of(models, operation):
    return next(model for model in models.values() if operation in model.operation_names)


def test_what_is_read_is_in_the_models(models):
    for operation, paths in exchange.READ.items():
        for path in paths:
            shape = model_of(models, operation).operation_model(operation).output_shape
            for name in path.split("."):
                shape = shape.members[name.removesuffix("[]")]
                if name.endswith("[]"):
                    shape = shape.member


PARSED = {
    "AssumeRole": {
        "Credentials": {"AccessKeyId": "A", "SecretAccessKey": "S", "SessionToken": "T", "Expiration": NOW},
    },
    "DescribeImages": {"Images": [{"ImageId": "ami-1", "State": "available"}]},
    "DescribeInstances": {"Reservations": [{"Instances": [{"InstanceId": "i-1", "State": {"Name": "running"}}]}]},
    "DescribeSnapshots": {"Snapshots": []},
    "ListSnapshotBlocks": {"Blocks": [{"BlockIndex": 0, "BlockToken": "t"}], "NextToken": "n"},
    "RegisterImage": {"ImageId": "ami-1"},
    "StartSnapshot": {"SnapshotId": "snap-1"},
    "CreateTags": {"ResponseMetadata": {"RequestId": "x"}},
}


@pytest.mark.parametrize("operation", PARSED)
def test_whole_answer_is_taken(models, operation):
    exchange.check_answer(operation, PARSED[operation], model_of(models, operation))


@pytest.mark.parametrize(
    ("operation", "answer", "words"),
    [
        ("AssumeRole", {}, "no Credentials.AccessKeyId"),
        (
            "AssumeRole",
            {"Credentials": {"AccessKeyId": "A", "SecretAccessKey": "S", "SessionToken": ""}},
            "SessionToken",
        ),
        ("AssumeRole", {"Credentials": "x"}, "AssumeRole.Credentials is not of type dict"),
        (
            "AssumeRole",
            {"Credentials": {**PARSED["AssumeRole"]["Credentials"], "Expiration": "soon"}},
            "Expiration is not of type datetime",
        ),
        ("DescribeImages", {}, "no Images"),
        ("DescribeImages", {"Images": None}, "no Images"),
        ("DescribeImages", {"Images": {}}, "Images is not of type list"),
        ("DescribeImages", {"Images": [{"State": "available"}]}, r"no Images\[\].ImageId"),
        ("DescribeImages", {"Images": ["ami-1"]}, r"Images\[\] is not of type dict"),
        (
            "DescribeImages",
            {"Images": [*PARSED["DescribeImages"]["Images"], {"ImageId": "ami-2"}]},
            r"no Images\[\].State",
        ),
        ("DescribeImages", {"Images": [{"ImageId": "ami-1", "State": 3}]}, "State is not of type str"),
        ("DescribeInstances", {"Reservations": [{"Instances": [{"InstanceId": "i-1"}]}]}, "State.Name"),
        ("ListSnapshotBlocks", {"Blocks": [{"BlockIndex": "0", "BlockToken": "t"}]}, "BlockIndex is not of type int"),
        ("ListSnapshotBlocks", {"Blocks": [{"BlockIndex": True, "BlockToken": "t"}]}, "BlockIndex is not of type int"),
        ("RegisterImage", {"ImageId": ""}, "no ImageId"),
        ("StartSnapshot", {"SnapshotId": ["snap-1"]}, "SnapshotId is not of type str"),
        ("StartSnapshot", [], "StartSnapshot is not of type dict"),
        ("StartSnapshot", None, "StartSnapshot is not of type dict"),
    ],
)
def test_half_an_answer_is_refused_with_what_is_wrong(models, operation, answer, words):
    with pytest.raises(exchange.HalfAnswerError, match=words):
        exchange.check_answer(operation, answer, model_of(models, operation))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"Code": "A", "Message": "b"}, {"Code": "A", "Message": "b"}),
        ({}, {"Code": "unknown", "Message": ""}),
        ({"Code": None, "Message": {"x": 1}}, {"Code": "unknown", "Message": "{'x': 1}"}),
        ("x", {"Code": "unknown", "Message": ""}),
        (None, {"Code": "unknown", "Message": ""}),
    ],
)
def test_refusal_always_has_a_code(error, expected):
    response = {"Error": error}
    exchange.complete_refusal(response)
    assert response["Error"] == expected
