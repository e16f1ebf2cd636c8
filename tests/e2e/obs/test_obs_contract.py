"""Our executable as the real worker calls it."""

import re
import time
from pathlib import Path

import pytest
from samples.job_logs import untimed

pytestmark = pytest.mark.obs

IMAGE = bytes(range(256)) * 8  # no packing has such a beginning: a raw image
FILENAME = "appliance-1.0.x86_64.raw"
SUCCEEDED_XML = """\
<clouduploadjob name="{name}">
  <state>succeeded</state>
  <details>gate-1</details>
  <created>{created}</created>
  <user>tom</user>
  <target>gate</target>
  <project>Base:System</project>
  <repository>images</repository>
  <package>appliance</package>
  <arch>x86_64</arch>
  <filename>appliance-1.0.x86_64.raw</filename>
  <size>2048</size>
</clouduploadjob>
"""


@pytest.fixture
def submit(backend, make_gate):
    """Put a job of the platform `gate` through the server; returns its id and its gate."""

    def make(**fields):
        gate = make_gate()
        return backend.submit(gate.data, IMAGE, target="gate", **{"filename": FILENAME, **fields}), gate

    return make


def test_success_is_told_by_state_details_and_log(backend, submit):
    job, gate = submit()
    gate.step("halfway")
    gate.step("end")

    fields = backend.wait_for(job, "succeeded")

    assert fields["details"] == "gate-1"
    log = backend.log(job).decode()
    lines = [rf"Start uploading image {FILENAME}\.", "halfway", r"Upload took: \d\d:\d\d:\d\d"]
    assert re.search(r"[^$]*".join(lines), log), log
    archived = SUCCEEDED_XML.format(name=job, created=fields["created"])
    assert backend.archived(job).decode() == archived
    assert backend.files() == set()
    assert {path.name for path in (backend.spool / "done").iterdir()} == {job, f"{job}.log"}


def test_image_is_linked_under_its_real_name_in_the_jobs_directory(backend, submit):
    job, gate = submit()

    log = backend.wait_for_log(job, "link ").decode()

    link = backend.spool / f"{job}.dir" / FILENAME
    assert f"link {link} of {len(IMAGE)} bytes" in log
    assert link.read_bytes() == IMAGE
    gate.step("end")
    backend.wait_for(job, "succeeded")


def test_failure_gives_its_reason_as_details(backend, submit):
    job, gate = submit()
    gate.step('fail the quota for <images> & "snapshots" is \x1b[31mused up\x1b[0m')

    fields = backend.wait_for(job, "failed")

    assert 'the quota for <images> & "snapshots" is' in fields["details"]
    assert "\n" not in fields["details"]
    assert f"Removed gate {FILENAME}." in backend.log(job).decode()
    assert backend.files() == set()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "target data"),
        (b"no json", "target data"),
        (b'{"steps": "\xe4"}', "target data"),
        (b"[1]", "target data"),
        (b'{"steps": ""}', "steps"),
        (b'{"steps": 7}', "steps"),
    ],
)
def test_wrong_target_data_are_named_in_details(backend, data, reason):
    job = backend.submit(data, IMAGE, target="gate", filename=FILENAME)

    assert reason in backend.wait_for(job, "failed")["details"]
    assert backend.files() == set()


@pytest.mark.parametrize("target", ["nowhere", "../ec2", "list", "ä<&>"])
def test_unknown_target_is_named_in_details(backend, target):
    job = backend.submit(b"{}", IMAGE, target=target, filename=FILENAME)

    assert target in backend.wait_for(job, "failed")["details"]


@pytest.mark.parametrize(
    "user",
    [
        'mls&<chroe> "x" o\'brien',
        "Jürgen 木村 \N{ROCKET}",
        "-king",
        "--help",
        "list",
        "  tom ",
        "tom\tand\njerry",
        "tom\rjerry",
        "0" * 2000,
        "$(reboot); `id` %s [/red]",
    ],
)
def test_user_with_odd_name_gets_an_image(backend, submit, user):
    job, gate = submit(user=user)
    gate.step("end")

    fields = backend.wait_for(job, "succeeded")

    # A bare carriage return does not survive the server's own way through XML.
    expected = user.replace("\r", "\n")
    assert fields["user"] == expected
    assert f"user {expected!a}" in backend.log(job).decode()


@pytest.mark.parametrize(
    "filename",
    ["../../escaped.raw", "/etc/passwd", "-rf.raw", "ä b\"'&<>.raw", "..", "tab\there.raw", "x" * 300 + ".raw"],
)
def test_filename_never_leads_out_of_the_jobs_directory(backend, submit, tmp_path, filename):
    job, gate = submit(filename=filename)
    before = {path for path in tmp_path.rglob("*") if backend.spool not in path.parents}
    gate.step("end")

    fields = backend.wait_for(job, "succeeded", "failed")

    linked = re.search(r"link (.*) of \d+ bytes", backend.log(job).decode())
    if fields["state"] == "succeeded":
        assert linked
        assert Path(linked[1]).parent == backend.spool / f"{job}.dir"
    else:
        assert linked is None
        assert "name" in fields["details"]
    assert backend.files() == set()
    assert {path for path in tmp_path.rglob("*") if backend.spool not in path.parents} == before


def test_kill_while_uploading_answers_at_once_and_cleans_up(backend, submit):
    job, _ = submit()
    backend.wait_for_log(job, "Created gate")

    backend.kill(job)

    assert backend.status(job)["details"] == "killed"
    backend.wait_until(lambda: not backend.uploads(), "the uploader has ended")
    log = backend.log(job).decode()
    assert f"Removed gate {FILENAME}." in log
    assert log.count("Removed gate") == 1
    assert backend.status(job)["state"] == "failed"
    assert backend.files() == set()


@pytest.mark.parametrize("seconds", [0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3])
def test_kill_while_starting_leaves_nothing(backend, submit, seconds):
    job, _ = submit()
    backend.wait_for(job, "uploading")
    time.sleep(seconds)

    backend.kill(job)

    backend.wait_until(lambda: not backend.uploads(), "the uploader has ended")
    assert backend.status(job)["details"] == "killed"
    assert backend.files() == set()
    log = backend.log(job).decode()
    assert log.count("Created gate") == log.count("Removed gate")
    assert "Traceback" not in log


def test_log_is_streamed_while_it_grows(backend, submit):
    job, gate = submit()
    backend.wait_for(job, "uploading")
    pieces = backend.follow(job)
    seen = next(pieces)
    for word in ("one", "two"):
        gate.step(word)
        while f"{word}\n".encode() not in seen:
            seen += next(pieces)
        assert backend.status(job)["state"] == "uploading"
    gate.step("end")

    seen += b"".join(pieces)

    backend.wait_for(job, "succeeded")
    assert backend.log(job) == seen


def test_log_from_its_end_waits_for_more(backend, submit):
    job, gate = submit()
    log = backend.wait_for_log(job, "link ")
    gate.step("more")

    assert b"more\n" in backend.wait_for_log(job, "more")
    assert backend.log(job, nostream=1, start=0).startswith(log)
    gate.step("end")
    backend.wait_for(job, "succeeded")


def test_log_says_something_before_anything_can_go_wrong(backend):
    job = backend.submit(b"no json", IMAGE, target="gate", filename=FILENAME)
    backend.wait_for(job, "failed")

    first = untimed(backend.log(job).decode())[0]
    assert first.startswith("clouduploader ")
    assert "user tom, target gate" in first
