"""Our commands as clients of OBS's own server, which alone knows the spool."""

import itertools
import json
import os
import socket
import subprocess
import threading

import pytest
from e2e.obs.obs_backend import EXECUTABLE
from e2e.obs.obs_capture import IMAGE
from e2e.obs.test_obs_commands import as_the_server_shows
from samples.job_logs import untimed

from clouduploader import client as client_module
from clouduploader.errors import PlatformReplyError
from clouduploader.jobs import log

pytestmark = pytest.mark.obs

FILENAME = "appliance-1.0.x86_64.raw"


@pytest.fixture
def start(backend, tmp_path):
    """Start one of our commands as somebody who has no spool, but the server's URL."""
    processes = []

    def start(*arguments):
        process = subprocess.Popen(
            [EXECUTABLE, *arguments],
            cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **backend.environment, "CLOUDUPLOADER_SERVER": backend.url},
        )  # fmt: skip
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def run(start):
    """As `start`, to its end; returns exit code, stdout, stderr."""

    def run(*arguments):
        process = start(*arguments)
        stdout, stderr = process.communicate()
        assert "Traceback" not in stderr
        return process.returncode, stdout, stderr

    return run


@pytest.fixture
def answer(run):
    """As `run`, with --json; returns the exit code and the data."""

    def answer(*arguments):
        code, stdout, _ = run(*arguments, "--json")
        return code, json.loads(stdout)["data"]

    return answer


@pytest.fixture
def words(make_gate, tmp_path):
    """The arguments of `submit` for the platform `gate`, and its gate."""
    gate = make_gate()
    (tmp_path / FILENAME).write_bytes(IMAGE)
    (tmp_path / "data.json").write_bytes(gate.data)
    return ["submit", FILENAME, "--user", "o'brien & <sons>", "--target", "gate", "--data", "data.json"], gate


def test_submitted_job_is_the_servers_and_its_uploader_gets_all(backend, words, run, answer):
    arguments, gate = words

    code, stdout, stderr = run(*arguments)

    assert (code, stdout, stderr) == (0, "1\n", f"job 1: sending {FILENAME}\n")
    backend.wait_for("1", "uploading")
    assert (backend.spool / "1.file").read_bytes() == IMAGE
    assert json.loads((backend.spool / "1.data").read_bytes()) == json.loads(gate.data)
    code, shown = answer("inspect", "1")
    assert code == 0
    assert as_the_server_shows(shown) == backend.status("1")
    assert {shown[key] for key in ("paths", "process", "pids", "ended", "image_bytes", "journal")} == {None}
    _, listed = answer("list")
    assert [as_the_server_shows(job) for job in listed["jobs"]] == backend.list()
    gate.step("end")
    backend.wait_for("1", "succeeded")
    assert answer("list", "--state", "succeeded")[1]["jobs"][0]["archived"]


def test_waiting_submit_follows_the_log_and_tells_the_outcome(backend, words, start):
    arguments, gate = words
    process = start(*arguments, "--wait")
    backend.wait_until(backend.list, "it is there")
    backend.wait_for_log("1", "Created gate")
    gate.step("one more line")
    gate.step("end")

    stdout, stderr = process.communicate()

    assert (process.returncode, stdout) == (0, "1\ngate-1\n")
    assert stderr == f"job 1: sending {FILENAME}\n{backend.log('1').decode()}job 1 succeeded: gate-1\n"


def test_waiting_submit_ends_as_the_job_fails(backend, words, answer):
    arguments, gate = words
    gate.step("fail no more gates")

    code, data = answer(*arguments, "--wait")

    assert (code, data["job"], data["server"], data["state"]) == (76, "1", backend.url, "failed")
    assert data["details"] == backend.status("1")["details"]


def test_log_of_a_running_job_is_what_is_there_now(backend, words, run, answer):
    arguments, _ = words
    run(*arguments)
    backend.wait_for_log("1", "Created gate")

    code, stdout, _ = run("log", "1")

    assert code == 0
    assert stdout.endswith(f"Created gate {FILENAME}.\n")
    assert untimed(run("log", "1", "-n", "1")[1]) == [f"Created gate {FILENAME}."]
    (line,) = answer("inspect", "1", "-n", "1")[1]["log"]["last_lines"]
    assert untimed(line) == [f"Created gate {FILENAME}."]
    assert answer("inspect", "1")[1]["objects"] == [{"kind": "gate", "id": FILENAME, "region": ""}]


def test_kill_is_the_servers(backend, words, run, answer):
    arguments, _ = words
    run(*arguments)
    backend.wait_for_log("1", "Created gate")

    code, data = answer("kill", "--yes", "1", "2")

    assert code == 66
    killed, unknown = data["jobs"]
    assert (killed["state"], killed["error"]) == ("failed", None)
    assert (killed["process"], killed["remaining_pids"]) == (None, None)
    assert unknown["error"]["kind"] == "NoSuchJobError"
    assert backend.status("1")["details"] == "killed"
    assert answer("kill", "--yes", "1")[1]["jobs"][0]["finished_before"]
    assert run("kill", "--yes", "--wait", "1")[0] == 64
    backend.wait_until(lambda: not backend.uploads(), "the uploader has ended")


def test_job_without_a_log_says_so(backend, make_gate, run, start):
    job = backend.create(make_gate().data, size=1, target="gate")

    assert run("log", job)[0] == 66
    follower = start("log", "-f", job)
    backend.kill(job)

    assert follower.wait() == 76


def test_image_that_the_server_does_not_want_is_refused_in_one_line(backend, words, run, tmp_path):
    arguments, _ = words
    backend.create(b"", size=1)
    (backend.spool / "next").unlink()  # what OBS's server can't do without

    code, stdout, stderr = run(*arguments)

    assert (code, stdout) == (76, "")
    reason = f"{backend.spool}/next: No such file or directory (HTTP 400)"
    assert stderr == f"clouduploader: the server {backend.url} refused: {reason}.\n"


def test_interrupted_transfer_fails_the_job(backend, words, start, tmp_path):
    arguments, _ = words
    with (tmp_path / FILENAME).open("wb") as file:
        file.truncate(1 << 40)  # all holes; sending it takes longer than this test
    process = start(*arguments)
    backend.wait_until(lambda: [job for job in backend.list() if job["state"] == "receiving"], "it is on its way")

    process.terminate()

    stdout, stderr = process.communicate()
    assert (process.returncode, stdout) == (143, "")
    assert "job 1 has not got all of its image, and fails" in stderr
    assert backend.wait_for("1", "failed")["details"] == "unexpected EOF"


class BreakingLine:
    """A way to a server on which each answer breaks off somewhere.

    Args:
        url: The server.

    Attributes:
        breaks: How many did.
    """

    def __init__(self, url):
        self._address = ("127.0.0.1", int(url.rpartition(":")[2]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.breaks = 0
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self):
        for number in itertools.count():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, socket.create_connection(self._address) as server:
                server.sendall(client.recv(65_536))  # a request without a body, which comes in one piece
                left = 3000 - number * 389 % 3000  # bytes; with a prime it is another place each time
                while left and (data := server.recv(left)):
                    client.sendall(data)
                    left -= len(data)
                self.breaks += not left


def test_log_is_whole_over_a_line_that_breaks_again_and_again(script_backend, tmp_path, monkeypatch):
    monkeypatch.setattr(log, "SERVER_POLL_SECONDS", 0.01)
    expected = b"".join(b"line %d of the log\n" % number for number in range(1, 1001))
    go = tmp_path / "go"
    script = (
        f'for i in $(seq 500); do echo "line $i of the log"; done; while [ ! -e {go} ]; do sleep 0.1; done; '
        'for i in $(seq 501 1000); do echo "line $i of the log"; done; printf ami-1 >"$1"'
    )
    name = script_backend.submit(script.encode(), IMAGE)
    script_backend.wait_for_log(name, "line 500 ")
    pieces = []

    def write(data):
        pieces.append(data)
        if b"".join(pieces).endswith(b"line 500 of the log\n"):
            go.touch()

    with BreakingLine(script_backend.url) as line:
        end = log.follow_at_server(client_module.JobServer(line.url), name, write=write, is_following=True)

    assert b"".join(pieces) == expected
    assert (end.job.details, end.is_archived) == ("ami-1", True)
    assert line.breaks > 5


def test_second_image_of_a_job_is_refused_before_it_is_sent(backend, make_gate):
    client = client_module.JobServer(backend.url)
    name = backend.submit(make_gate().data, IMAGE, target="gate")
    with pytest.raises(PlatformReplyError, match="job is not in created state"), client.receive(name):
        raise AssertionError("it was asked for")
    backend.wait_for(name, "failed")  # who can't be told "no" would wait for ever, so that the job is killed
