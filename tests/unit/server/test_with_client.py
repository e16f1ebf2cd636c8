"""Our server, as our own client sees it."""

import contextlib
import datetime
import hashlib
import json
import re
import socket
import threading
import types

import pytest

from clouduploader import client as client_module
from clouduploader.cli import main
from clouduploader.client import api
from clouduploader.client.api import ApiServer
from clouduploader.errors import PlatformReplyError
from clouduploader.jobs import list as jobs_list
from clouduploader.jobs import log as jobs_log
from clouduploader.jobs import submit as submitting
from clouduploader.model.job import Job, JobState
from clouduploader.store.images import ImageStore
from clouduploader.store.tokens import Role, TokenStore

ORDER = Job(name="", state=JobState.CREATED, user="tom & <co>", target="ec2", project="", repository="", package="",
            arch="", filename="a b.raw", size=5)  # fmt: skip
ROLE = "arn:aws:iam::123456789012:role/obs"


@pytest.fixture
def jobs(make_spool):
    return make_spool()


@pytest.fixture
def client(serve, jobs):
    host, port = serve(jobs).address
    return client_module.JobServer(f"http://{host}:{port}")


@pytest.fixture
def run(client, home, capfdbinary):
    """Return a function that runs the program on the server; gives the exit code, stdout and stderr."""

    def run(command, *words):
        code = main.main(["--home", str(home), command, "--server", client.url, *map(str, words)])
        out, err = capfdbinary.readouterr()
        return int(code), out.decode(), err.decode()

    return run


def test_submitted_image_is_in_the_spool(run, jobs, tmp_path):
    image = tmp_path / "my image.raw"
    image.write_bytes(bytes(range(256)) * 4096)
    words = ("--user", "tom & <co>", "--arn", ROLE, "--region", "eu-west-1", "--name", "my-image")

    assert run("submit", image, *words) == (0, "1\n", "sending my image.raw\n")

    job, _ = jobs.read("1")
    assert (job.state, job.user, job.size, job.filename) == (JobState.SCHEDULED, "tom & <co>", 1 << 20, "my image.raw")
    assert jobs.file_path("1").read_bytes() == image.read_bytes()
    assert json.loads(jobs.data_path("1").read_bytes())["arn"] == ROLE


def test_second_image_of_a_job_is_refused_before_it_is_sent(client, jobs):
    client.create(ORDER, targetdata=b"{}")
    with client.receive("1") as transfer:
        transfer.write(b"image")
        transfer.finish()
    with pytest.raises(PlatformReplyError, match="job is not in created state"), client.receive("1"):
        raise AssertionError("it was asked for")


def test_transfer_that_is_left_fails_the_job(client, jobs):
    client.create(ORDER, targetdata=b"{}")
    with contextlib.suppress(KeyError), client.receive("1") as transfer:
        transfer.write(b"im")
        raise KeyError
    jobs_log.follow_at_server(client, "1", write=lambda _data: None, is_following=True)
    assert client.read("1").details == "unexpected EOF"


def test_jobs_look_alike_from_the_server_and_from_the_spool(run, jobs, make_job, home, capfdbinary):
    make_job(jobs, "1", state=JobState.SUCCEEDED, details="ami-1", log=b"one\ntwo\n", size=5)
    make_job(jobs, "2", state=JobState.SCHEDULED, project="P:Q", user="mls&<chroe>")
    make_job(jobs, "3", state=JobState.FAILED, details="no", log=b"")

    def of_spool(*words):
        code = main.main(["--home", str(home), "--spool", str(jobs.directory), *words])
        out, err = capfdbinary.readouterr()
        return int(code), out.decode(), err.decode()

    lines = (
        "list",
        "list --json",
        "list --running",
        "log 1",
        "log 1 -n 1",
        "log 3",
        "log -f 1",
        "log 2",
        "log 1 --json",
    )
    for line in lines:
        assert run(*line.split()) == of_spool(*line.split())


def test_log_is_followed_until_the_job_ends(client, jobs, make_job):
    make_job(jobs, "1")
    with jobs.open_log("1") as log:
        log.write(b"one\n")
        pieces, ends, is_begun = [], [], threading.Event()

        def write(data):
            pieces.append(data)
            is_begun.set()

        def follow():
            ends.append(jobs_log.follow_at_server(client, "1", write=write, is_following=True))

        follower = threading.Thread(target=follow)
        follower.start()
        assert is_begun.wait(60)
        log.write(b"two\n")
        with jobs.lock("1") as locked:
            locked.archive(locked.job.ended(JobState.SUCCEEDED, "ami-1"))
    follower.join(60)
    assert b"".join(pieces) == b"one\ntwo\n"
    assert (ends[0].job.details, ends[0].is_archived) == ("ami-1", True)


def test_kill_archives_the_job(run, jobs, make_job):
    make_job(jobs, "1", state=JobState.SCHEDULED)
    assert run("kill", "--yes", "1") == (0, "job 1: killed\n", "")
    assert jobs.read("1")[0].details == "killed"
    assert run("kill", "--yes", "1")[1] == "job 1: is over already: failed\n"


# --- by the API


@pytest.fixture
def bad_line(client):
    """A line to the server that breaks off the first requests that send a piece, after 100,000 bytes each."""
    host, port = client.url.removeprefix("http://").split(":")
    listener, broken = socket.create_server(("127.0.0.1", 0)), []

    def carry(near, with_far):
        with near, with_far as far:
            head = near.recv(65_536)
            left = 100_000 if head.startswith(b"PATCH") and len(broken) < BREAKS else None
            broken.extend([head] if left else [])
            far.sendall(head)
            threading.Thread(target=back, args=(far, near)).start()
            while (left is None or left > 0) and (data := near.recv(65_536)):
                far.sendall(data)
                left = None if left is None else left - len(data)
            with contextlib.suppress(OSError):
                far.shutdown(socket.SHUT_RDWR if left is not None else socket.SHUT_WR)
                while left is None and far.fileno() >= 0 and near.recv(1):
                    pass

    def back(far, near):
        with contextlib.suppress(OSError):
            while data := far.recv(65_536):
                near.sendall(data)
            near.shutdown(socket.SHUT_RDWR)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                threading.Thread(target=carry, args=(near, socket.create_connection((host, int(port))))).start()

    threading.Thread(target=serve).start()
    yield types.SimpleNamespace(url=f"http://127.0.0.1:{listener.getsockname()[1]}", broken=broken)
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.raw"
    path.write_bytes(bytes(range(256)) * 8192)
    return path


BREAKS = 3


def submit(url, image, home, *words):
    common = ("--user", "tom", "--arn", ROLE, "--region", "eu-west-1", "--name", "my-image")
    return main.main(["--home", str(home), "submit", "--server", url, *common, *words, str(image)])


def test_image_goes_on_as_often_as_the_line_breaks(bad_line, image, home, jobs, monkeypatch, capfd):
    monkeypatch.setattr(submitting, "FIRST_PAUSE_SECONDS", 0.01)
    assert submit(bad_line.url, image, home) == 0
    assert len(bad_line.broken) == BREAKS
    told = capfd.readouterr().err.splitlines()
    assert told[0] == "sending image.raw"
    assert 1 <= len(told[1:]) <= BREAKS  # not of a try that brought nothing more
    for line in told[1:]:
        assert re.fullmatch(r"clouduploader: warning: .* http://127\.0\.0\.1.*; trying again for 5 minutes", line)
    offsets = [int(re.search(rb"Upload-Offset: (\d+)", head)[1]) for head in bad_line.broken]
    assert offsets == sorted(offsets)
    assert jobs.file_path("1").read_bytes() == image.read_bytes()
    assert jobs.running_names() == ["1"]


def test_image_of_a_client_that_died_is_not_sent_again(client, image, home, jobs):
    """What the server has is in its file already: were it sent again, the file would be another one."""
    with image.open("rb", buffering=0) as opened:
        sender = submitting._PiecesSender(ApiServer(client.url), opened, image, image.stat().st_size, None, print)
        name = ApiServer(client.url).begin_image(
            filename=image.name, size_bytes=image.stat().st_size, fingerprint=sender._fingerprint()
        )
    store = ImageStore(jobs.directory)
    with store.open(name) as begun:
        begun.write(b"\xff" * 1000)
        begun.sync()
    assert submit(client.url, image, home) == 0
    assert jobs.file_path("1").read_bytes() == b"\xff" * 1000 + image.read_bytes()[1000:]


def test_image_that_was_changed_is_sent_from_the_beginning(client, image, home, jobs):
    assert submit(client.url, image, home) == 0
    image.write_bytes(b"another" * 1000)
    assert submit(client.url, image, home) == 0
    assert jobs.file_path("2").read_bytes() == b"another" * 1000


def test_digest_is_held_against_what_was_sent_before_too(client, image, home, jobs):
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    assert submit(client.url, image, home, "--sha256", digest) == 0
    assert submit(client.url, image, home, "--sha256", "0" * 64) == 65
    assert [one.job for one in ImageStore(jobs.directory).images()] == ["1"]
    assert jobs.running_names() == ["1"]


def test_list_takes_page_after_page(client, jobs, make_job):
    for name in range(1, 450):
        make_job(jobs, str(name), state=JobState.FAILED, user="tom" if name % 2 else "anna")
    (jobs.directory / "done" / "77").write_text("<")
    query = jobs_list.JobQuery(users=["tom"])
    listing = jobs_list.list_at_server(ApiServer(client.url), query)
    assert listing.total == 449
    assert [int(entry.name) for entry in listing.entries] == [name for name in range(449, 0, -2) if name != 77]


def test_job_that_waits_is_started_by_the_server(run, jobs, make_job):
    make_job(jobs, "1", state=JobState.WAITING)
    assert run("retry", "1") == (0, "", "job 1: scheduled\n")
    code, _, err = run("retry", "1")
    assert code == 76
    assert "the job 1 is scheduled: it is about to run (HTTP 409)" in err
    assert run("retry", "2")[0] == 66


def test_server_is_asked_once_what_it_can(client, make_server):
    assert isinstance(api.connect(client.url), ApiServer)
    assert not isinstance(api.connect(make_server().url), ApiServer)


def test_what_is_too_much_is_told_at_once(serve, jobs, image, home, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(submitting, "FIRST_PAUSE_SECONDS", 100)  # a second try would hang
    urls = ["http://{}:{}".format(*serve(jobs, **limit).address) for limit in ({"user_bytes": "3"}, {"user_jobs": "1"})]
    now = datetime.datetime.now(datetime.UTC)
    token = TokenStore(tmp_path / "etc" / "cloudupload").create("tom", Role.USER, note="", expires=None, now=now)[1]
    ImageStore(jobs.directory).create("tom", 1, metadata={}, now=now)
    for url, code, words in (
        (urls[0], 76, "the image has 2097152 bytes, and those of tom may have 3 (HTTP 413)"),
        (urls[1], 75, "tom has 1 jobs that are not over, and may have 1 (HTTP 429)"),
    ):
        monkeypatch.setenv("CLOUDUPLOADER_TOKEN", token)
        assert submit(url, image, home) == code
        assert words in capfd.readouterr().err
