"""What goes wrong on the way to Google, and what an upload makes of it."""

import signal
import subprocess
import sys
import time

import pytest
from e2e.cloud_suite import WAIT_SECONDS
from samples import made_images, minimal_disk

from clouduploader.errors import ExitCode

MAX_MEMORY_KIB = 96 << 10
SIGTERM_SECONDS = 8.0  # a call that is under way gets five seconds
MEASURED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


def noise(size_mib):
    """A disk that can't be packed, with a hole of as much behind it."""
    return minimal_disk.as_disk(made_images.with_holes(2 * size_mib << 20, [(0, size_mib << 20)], 0))


@pytest.fixture
def image(make_image):
    return make_image("disk.raw", raw=noise(20))  # two chunks


@pytest.mark.parametrize(
    "fault",
    [
        {"action": "objects.upload", "nth": 1, "cut_request_bytes": 5_000_000},
        {"action": "objects.upload", "nth": 2, "lose_answer": True},
        {"action": "objects.upload", "nth": 1, "cut_answer": 0.5},
        {"action": "objects.upload", "first": 2, "code": "backendError"},
        {"action": "objects.insert", "first": 1, "code": "rateLimitExceeded"},
        {"action": "images.insert", "first": 1, "lose_answer": True},
        {"action": "globalOperations.get", "first": 1, "code": "internalError"},
        {"action": "token", "first": 1, "status": 503},
    ],
    ids=lambda fault: "-".join(map(str, fault.values())),
)
def test_upload_gets_over_it(case, image, fault):
    case.sandbox.faults(fault)
    case.assert_only(case.upload(image.path), image.raw)


def test_bytes_that_are_changed_on_the_way_become_no_image(case, image):
    case.sandbox.fault("objects.upload", nth=1, corrupt=True)
    done = case.sandbox.run(case.command(image.path))
    assert done.returncode == ExitCode.PROTOCOL, done.stderr
    assert "CRC32C" in done.stderr
    assert (case.images(), case.others()) == ([], [])


def test_sigterm_ends_an_upload_whose_request_stalls(case, image):
    case.sandbox.fault("objects.upload", nth=2, stall="read")
    process = case.sandbox.popen(case.command(image.path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    ends_at = time.monotonic() + WAIT_SECONDS
    while len(case.sandbox.calls("objects.upload")) < 2:
        assert time.monotonic() < ends_at
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == ExitCode.TERMINATED
    assert time.monotonic() - began < SIGTERM_SECONDS
    assert (case.images(), case.others(), case.account()["sessions"]) == ([], [], [])


def test_rights_that_are_missing_are_told_by_a_dry_run(case, image):
    case.sandbox.control("POST", "rights", {"bucket": ["storage.objects.create"], "project": ["compute.images.get"]})
    done = case.sandbox.run(case.command(image.path, "--dry-run"))
    assert done.returncode == ExitCode.DENIED
    assert "lack storage.objects.delete, storage.objects.get, storage.objects.list" in done.stderr


def test_image_in_the_making_is_waited_for(case, image):
    case.sandbox.control("POST", "pace", {"image_seconds": 3})
    case.assert_only(case.upload(image.path), image.raw)


def test_memory_stays_small(case, make_image):
    command = case.command(make_image("disk.raw", raw=noise(100)).path)
    done = case.sandbox.run([sys.executable, "-c", MEASURED, *command])
    assert done.returncode == 0, done.stderr
    assert int(done.stderr.split()[-1]) < MAX_MEMORY_KIB
