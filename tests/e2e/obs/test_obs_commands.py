"""Our commands on a spool that the real daemons work on at the same time."""

import concurrent.futures
import contextlib
import datetime
import os
import re
import signal
import subprocess

import pytest
from e2e.obs.obs_backend import BackendError
from e2e.obs.obs_capture import DATA_DIR, IMAGE, SLEEP, without_numbers

pytestmark = pytest.mark.obs

FILENAME = "appliance-1.0.x86_64.raw"


@pytest.fixture
def submit(backend, make_gate):
    """Put a job of the platform `gate` through the server; returns its id and its gate."""

    def make(**fields):
        gate = make_gate()
        return backend.submit(gate.data, IMAGE, target="gate", **{"filename": FILENAME, **fields}), gate

    return make


OBS_FIELDS = (
    "state", "details", "progress", "try", "created", "user", "target", "project", "repository",
    "package", "arch", "filename", "size", "pid",
)  # fmt: skip


def as_the_server_shows(document):
    """A job of our JSON as the server's XML has it: all text, the id called name, what is absent left out."""
    created = document["created"] and datetime.datetime.fromisoformat(document["created"])
    fields = {key: document[key] for key in OBS_FIELDS} | {"created": created and int(created.timestamp())}
    return {"name": document["job"]} | {key: str(value) for key, value in fields.items() if value is not None}


def ended_by_sigkill(pid):
    """Kill a process group as a crash would."""
    os.killpg(pid, signal.SIGKILL)


def rewrite(path, old, new):
    """Change a job file as OBS does: beside and renamed."""
    beside = path.with_name(".by-hand")
    beside.write_bytes(re.sub(old, new, path.read_bytes()))
    beside.replace(path)


def test_list_shows_what_the_server_shows(script_backend, answer):
    done = script_backend.spool / "done"
    done.mkdir()
    for number, path in enumerate(sorted(set(DATA_DIR.glob("*.xml")) - {DATA_DIR / "next.xml"}), 100):
        content = re.sub(rb'name="\d+"', b'name="%d"' % number, path.read_bytes())
        (done / str(number)).write_bytes(content)
    running = script_backend.submit(SLEEP, IMAGE, user="mls&<chroe>")
    script_backend.wait_for(running, "uploading")

    listed = answer(script_backend, "list")["jobs"]

    ours = {job["job"]: as_the_server_shows(job) for job in listed if job["damage"] is None}
    theirs = {job["name"]: job for job in script_backend.list()}
    assert running in ours
    to_us_damaged = [job for job in theirs.values() if job["name"] not in ours]
    assert [job["size"] for job in to_us_damaged] == ["abc"]
    assert ours == {name: theirs[name] for name in ours}


def test_inspect_shows_what_the_server_shows(backend, submit, answer):
    job, gate = submit()
    backend.wait_for(job, "uploading")

    shown = answer(backend, "inspect", job)

    assert as_the_server_shows(shown) == backend.status(job)
    assert shown["process"] == "working"
    gate.step("end")
    backend.wait_for(job, "succeeded")
    shown = answer(backend, "inspect", job)
    assert as_the_server_shows(shown) == backend.status(job)
    assert shown["archived"]


def test_log_is_followed_from_running_to_archived(backend, submit, command):
    job, gate = submit()
    backend.wait_for(job, "uploading")
    follower = command(backend, "log", "-f", job)
    seen = ""
    for word in ("one", "two"):
        gate.step(word)
        while f"{word}\n" not in seen:
            line = follower.stdout.readline()
            assert line, seen
            seen += line
    gate.step("end")

    seen += follower.stdout.read()

    assert follower.wait() == 0
    backend.wait_for(job, "succeeded")
    assert seen == backend.log(job).decode()


def test_log_followed_into_a_kill_by_the_server_tells_the_failure(backend, submit, command):
    job, _ = submit()
    backend.wait_for(job, "uploading")
    follower = command(backend, "log", "-f", job)
    assert follower.stdout.readline()

    backend.kill(job)

    follower.stdout.read()
    assert follower.wait() != 0


def test_kill_leaves_what_the_servers_kill_leaves(backend, submit, run):
    theirs, _ = submit()
    ours, _ = submit()
    for job in (theirs, ours):
        backend.wait_for_log(job, "Created gate")
    backend.kill(theirs)

    code, stdout, stderr = run(backend, "kill", ours, "--yes", "--wait")

    assert code == 0, stderr
    assert f"removed gate {FILENAME}" in stdout
    assert backend.status(ours)["details"] == "killed"
    assert without_numbers(backend.archived(ours)) == without_numbers(backend.archived(theirs))
    backend.wait_until(lambda: not backend.uploads(), "both uploaders have ended")
    assert backend.files() == set()
    assert (backend.spool / "done" / f"{ours}.log").stat().st_mode == (
        backend.spool / "done" / f"{theirs}.log"
    ).stat().st_mode
    for job in (ours, theirs):
        assert f"Removed gate {FILENAME}." in backend.log(job).decode()


def test_kill_frees_the_workers_slot(backend, submit, run):
    # Four is the limit, and a job held back by it is not looked at again until the worker is woken.
    jobs = [submit(user=f"user{number}")[0] for number in range(5)]
    for job in jobs[:4]:
        backend.wait_for(job, "uploading")
    assert backend.status(jobs[4])["state"] == "scheduled"

    code, _, stderr = run(backend, "kill", jobs[0], "--yes", "--wait")

    assert code == 0, stderr
    backend.wait_for(jobs[4], "uploading")


@pytest.mark.parametrize("state", ["created", "scheduled"])
def test_kill_of_a_job_that_waits_archives_it(backend, submit, make_gate, run, state):
    if state == "created":
        job = backend.create(make_gate().data, size=1, target="gate")
    else:
        submit(), submit()
        job, _ = submit()
    backend.wait_for(job, state)

    code, _, stderr = run(backend, "kill", job, "--yes")

    assert code == 0, stderr
    assert backend.status(job)["details"] == "killed"
    assert not {name for name in backend.files() if name.lstrip(".").startswith(job)}


def test_kill_of_a_job_that_is_received_ends_the_transfer(backend, make_gate, run):
    job = backend.create(make_gate().data, size=len(IMAGE), target="gate")
    with backend.sending(job, len(IMAGE), IMAGE[:2]) as connection:
        backend.wait_for(job, "receiving")

        code, _, stderr = run(backend, "kill", job, "--yes")

        assert code == 0, stderr
        assert backend.status(job)["details"] == "killed"
        with contextlib.suppress(ConnectionError):  # the server may already have hung up
            connection.sendall(IMAGE[2:])
            connection.recv(4096)
    backend.wait_until(lambda: backend.files() == set(), "what was received is gone")


def test_kill_by_both_at_once_archives_once(backend, submit, command):
    for _ in range(5):
        job, _ = submit()
        backend.wait_for(job, "uploading")
        process = command(backend, "kill", job, "--yes", "--wait")
        backend.kill(job)

        process.communicate()

        assert process.returncode == 0
        assert backend.status(job)["details"] == "killed"
        assert backend.files() == set()
    backend.wait_until(lambda: not backend.uploads(), "the uploaders have ended")


def test_kill_of_a_job_with_a_stale_pid_spares_the_stranger(backend, submit, run):
    job, _ = submit()
    pid = int(backend.wait_for(job, "uploading")["pid"])
    ended_by_sigkill(pid)
    backend.wait_until(lambda: not backend.uploads(), "the upload has died")
    assert backend.status(job)["state"] == "uploading"
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as stranger:
        rewrite(backend.spool / job, rb"<pid>\d+", b"<pid>%d" % stranger.pid)

        code, _, stderr = run(backend, "kill", job, "--yes")

        assert stranger.poll() is None
        stranger.kill()
    assert code == 0, stderr
    assert backend.status(job)["details"] == "killed"
    assert backend.files() == set()


def test_job_whose_processes_died_is_shown_so_and_can_be_killed(backend, submit, run, answer):
    job, _ = submit()
    ended_by_sigkill(int(backend.wait_for(job, "uploading")["pid"]))
    backend.wait_until(lambda: not backend.uploads(), "the upload has died")

    assert answer(backend, "inspect", job)["process"] == "gone"
    code, _, stderr = run(backend, "kill", job, "--yes", "--wait")

    assert code == 0, stderr
    assert backend.status(job)["details"] == "killed"
    assert backend.files() == set()


def test_kill_of_an_unknown_job_says_so(backend, run):
    code, _, stderr = run(backend, "kill", "4711", "--yes")

    assert code == 66
    assert "4711" in stderr


def test_kill_of_an_archived_job_changes_nothing(backend, submit, run):
    job, gate = submit()
    gate.step("end")
    backend.wait_for(job, "succeeded")
    before = backend.archived(job)

    run(backend, "kill", job, "--yes")

    assert backend.archived(job) == before


def test_no_job_is_ever_missing_while_the_daemons_work(script_backend, answer):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = script_backend.submit(b"", IMAGE)
        feeding = pool.submit(lambda: [script_backend.submit(b"", IMAGE, user=f"u{number}") for number in range(40)])
        known = {first}
        while not feeding.done():
            listed = answer(script_backend, "list")["jobs"]
            names = [job["job"] for job in listed]
            assert len(names) == len(set(names))
            assert known <= set(names)
            assert [job for job in listed if job["damage"]] == []
            known |= set(names)
        feeding.result()


def test_upload_by_hand_is_a_job_to_the_server(backend, make_gate, command, tmp_path):
    image = tmp_path / FILENAME
    image.write_bytes(IMAGE)
    gate = make_gate()
    (tmp_path / "data.json").write_bytes(gate.data)
    other = backend.create(gate.data, size=1, target="gate")

    process = command(backend, "upload", "--target", "gate", "--data", str(tmp_path / "data.json"), str(image))

    job = str(int(other) + 1)
    backend.wait_until(lambda: job in {entry["name"] for entry in backend.list()}, "it is registered")
    assert backend.wait_for(job, "uploading")["filename"] == FILENAME
    assert backend.create(gate.data, size=1, target="gate") == str(int(other) + 2)
    gate.step("end")
    process.communicate()
    assert process.returncode == 0
    assert backend.wait_for(job, "succeeded")["details"] == "gate-1"
    assert b"Created gate" in backend.log(job)
    assert image.read_bytes() == IMAGE


def test_upload_by_hand_is_killed_by_the_server_and_the_script_around_it_is_not(backend, make_gate, command, tmp_path):
    image = tmp_path / FILENAME
    image.write_bytes(IMAGE)
    (tmp_path / "data.json").write_bytes(make_gate().data)
    # A shell without job control leaves what it starts in its own process group.
    script = tmp_path / "script"
    script.write_text('#!/bin/sh\n"$@"\necho "then $?"\n')
    script.chmod(0o755)
    process = command(
        backend,
        *("upload", "--target", "gate", "--data", str(tmp_path / "data.json"), str(image)),
        around=[str(script)],
    )
    backend.wait_until(lambda: backend.list() != [], "it is registered")
    backend.wait_for_log("1", "Created gate")

    backend.kill("1")

    stdout, _ = process.communicate()
    assert stdout == f"then {128 + signal.SIGTERM}\n"
    assert backend.status("1")["details"] == "killed"
    assert f"Removed gate {FILENAME}." in backend.log("1").decode()
    (kept,) = backend.files()  # for `retry`
    assert (kept.partition("/")[0], kept.rpartition("/")[2]) == ("journal", "targetdata")
    assert image.read_bytes() == IMAGE


def test_damaged_job_of_the_servers_is_shown_as_damaged(script_backend, run, answer):
    job = script_backend.submit(rb"""printf '\033[31mred' >"$1" """, IMAGE)
    script_backend.wait_until(lambda: not (script_backend.spool / job).exists(), "it is archived")
    with pytest.raises(BackendError, match="no such job"):
        script_backend.status(job)

    [listed] = answer(script_backend, "list")["jobs"]

    assert listed["job"] == job
    assert listed["state"] is None
    assert "not XML" in listed["damage"]
    code, stdout, _ = run(script_backend, "inspect", job)
    assert "damaged" in stdout
    assert "\x1b" not in stdout
    assert code == 0
