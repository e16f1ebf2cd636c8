"""The backend itself, with a scripted uploader: what the tests beside this one lean on."""

import os
import signal

import pytest
from e2e.obs.obs_backend import Backend, BackendError
from e2e.obs.obs_capture import DATA_DIR, capture, without_numbers

pytestmark = pytest.mark.obs


def test_job_with_result_succeeds_and_leaves_an_archive_only(script_backend: Backend) -> None:
    job = script_backend.submit(b'echo hello; printf ami-1 >"$1"', b"image")

    fields = script_backend.wait_for(job, "succeeded")

    assert fields["details"] == "ami-1"
    assert script_backend.log(job) == b"hello\n"
    assert script_backend.files() == set()
    assert {p.name for p in (script_backend.spool / "done").iterdir()} == {job, f"{job}.log"}


def test_backend_stop_ends_uploads_in_other_sessions(script_backend: Backend) -> None:
    script = b"trap '' TERM; setsid sleep 1000 & setsid sleep 1000 & echo $!; wait"
    job = script_backend.submit(script, b"image")
    script_backend.wait_for(job, "uploading")
    pid = int(next(script_backend.follow(job, nostream=1, start=0)))
    script_backend.kill(job)
    script_backend.wait_for(job, "failed")
    assert pid in script_backend.uploads()

    script_backend.stop()

    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def test_unknown_job_is_refused_with_404(script_backend: Backend) -> None:
    with pytest.raises(BackendError, match="no such job") as caught:
        script_backend.status("4711")
    assert caught.value.status == 404


def test_captured_job_files_are_what_the_backend_writes(script_backend: Backend) -> None:
    kept = {path.name: without_numbers(path.read_bytes()) for path in DATA_DIR.glob("*.xml")}

    written = {name: without_numbers(content) for name, content in capture(script_backend).items()}

    assert written == kept
