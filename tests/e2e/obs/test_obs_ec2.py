"""The whole way: OBS's server, its worker, our executable, the real ec2uploadimg, an emulated AWS."""

import contextlib
import json
import os
import re
import signal
from pathlib import Path

import pytest

pytestmark = [pytest.mark.obs, pytest.mark.sandbox]

FILENAME = "appliance-1.0.x86_64.raw.xz"


@pytest.fixture
def backend(make_backend, bin_dir, sandbox):
    """A backend whose processes see the sandbox's network, in which AWS is all there is."""
    return make_backend(
        bin_dir,
        sandbox.layout.bin,
        prefix=sandbox.enter,
        CLOUDUPLOADER_HOME=str(sandbox.home),
        AWS_ENDPOINT_URL=sandbox.description["endpoint"],
        AWS_EC2_METADATA_DISABLED="true",
    )


@pytest.fixture
def submit(backend, sandbox, make_image):
    """Put a job through the server; returns its id and the image."""

    def make(**targetdata):
        image = make_image(FILENAME)
        data = json.dumps(sandbox.targetdata(**targetdata)).encode()
        return backend.submit(data, image.path.read_bytes(), target="ec2", filename=FILENAME), image

    return make


def test_image_given_to_obs_becomes_an_ami(backend, sandbox, submit):
    job, image = submit()

    details = backend.wait_for(job, "succeeded")["details"]

    [ami] = sandbox.account()["images"]
    assert details == ami["id"]
    assert sandbox.left().keys() == {"images", "snapshots"}
    assert sandbox.image_bytes(details, len(image.raw)) == image.raw
    log = backend.log(job).decode()
    lines = [
        rf"Start uploading image {re.escape(FILENAME)}\.",
        r"Successfully authenticated\.",
        rf"Created image: {details}",
        r"Upload took: \d\d:\d\d:\d\d",
    ]
    assert re.search(r"\n(?s:.*)".join(lines), log), log
    assert backend.files() == set()
    assert {path.name for path in (backend.spool / "done").iterdir()} == {job, f"{job}.log"}


def test_wrong_external_id_is_the_reason_in_details(backend, sandbox, submit):
    job, _ = submit(external_id="A" * 24)

    details = backend.wait_for(job, "failed")["details"]

    assert "external id" in details.lower()
    assert sandbox.description["role_arn"] in details
    assert "\n" not in details
    assert sandbox.left() == {}
    assert backend.files() == set()


@pytest.mark.parametrize(
    "stage", ["Successfully authenticated", "Created vpc ", "Created instance ", "Created volume ", "Created snapshot "]
)
def test_kill_while_uploading_leaves_nothing_in_the_account(backend, sandbox, submit, stage):
    sandbox.helper(sftp_delay_seconds=0.02)
    sandbox.pace(5)
    job, _ = submit()
    backend.wait_for_log(job, stage)

    backend.kill(job)

    assert backend.status(job)["details"] == "killed"
    backend.wait_until(lambda: not backend.uploads(), "the uploader has cleaned up")
    assert sandbox.left() == {}
    log = backend.log(job).decode()
    created = re.findall(r"^Created ([a-z ]+ [a-z]+-[0-9a-f]+)", log, re.MULTILINE)
    assert [thing for thing in created if f"Removed {thing}" not in log] == []
    assert log.endswith("stopped by SIGTERM.\n")
    assert backend.files() == set()


def test_log_grows_while_ec2uploadimg_works(backend, sandbox, submit):
    sandbox.helper(sftp_delay_seconds=0.01)
    job, _ = submit()
    first = backend.wait_for_log(job, "Successfully authenticated")
    assert backend.status(job)["state"] == "uploading"

    more = b"".join(backend.follow(job, start=len(first)))

    backend.wait_for(job, "succeeded")
    assert b"Created image" not in first
    assert b"Created image" in more
    assert first + more == backend.log(job)


def contents(paths):
    """What is in these files, one after the other; those that went away meanwhile are left out."""
    found = b""
    for path in paths:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, IsADirectoryError):
            found += path.read_bytes()
    return found


def test_secrets_are_in_no_process_and_no_file(backend, sandbox, submit):
    sandbox.helper(sftp_delay_seconds=0.01)
    job, _ = submit()
    backend.wait_for_log(job, "Created volume ")
    processes = [Path(f"/proc/{pid}") for pid in backend.uploads()]

    seen = contents(path / name for path in processes for name in ("cmdline", "environ"))
    seen += contents(backend.spool.rglob("*"))
    backend.wait_for(job, "succeeded")
    seen += contents(backend.spool.rglob("*"))

    assert b"ec2uploadimg" in seen
    assert sandbox.description["obs"]["secret_access_key"].encode() not in seen
    # What is temporary we never learn; but its key id begins so, and so are its variables called.
    assert re.findall(rb"ASIA[A-Z0-9]{8,}|AWS_SECRET\w+|AWS_SESSION\w+|aws_(?:secret|session)\w+", seen) == []


def test_upload_that_crashed_is_cleaned_up_by_kill(backend, sandbox, submit, answer):
    sandbox.helper(sftp_delay_seconds=0.02)
    job, _ = submit()
    backend.wait_for_log(job, "Phase: upload")  # while it sends, it makes nothing whose id nobody would learn
    for pid in backend.uploads():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    backend.wait_until(lambda: not backend.uploads(), "the upload has died")
    assert backend.status(job)["state"] == "uploading"
    assert sandbox.left() != {}

    [killed] = answer(backend, "kill", job, "--yes", "--force")["jobs"]

    assert killed["process"] == "gone"
    assert "instance" in {thing["kind"] for thing in killed["removed"]}
    assert killed["left"] == []
    assert sandbox.left() == {}
    assert backend.status(job)["details"] == "killed"
    assert backend.files() == set()
