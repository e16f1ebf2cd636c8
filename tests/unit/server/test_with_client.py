"""Our server, as our own client sees it."""

import contextlib
import json
import threading

import pytest

from clouduploader import client as client_module
from clouduploader.cli import main
from clouduploader.errors import PlatformReplyError
from clouduploader.jobs import log as jobs_log
from clouduploader.model.job import Job, JobState

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

    assert run("submit", image, *words) == (0, "1\n", "job 1: sending my image.raw\n")

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
