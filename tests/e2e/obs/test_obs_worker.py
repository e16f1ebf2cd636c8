"""Our worker with OBS's own daemons: the old server gives the jobs, and either worker keeps the other out."""

import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.obs.obs_backend import Backend

pytestmark = pytest.mark.obs
IMAGE = b"image" * 1000
FILENAME = "appliance-1.0.x86_64.raw"


@pytest.fixture
def server(make_backend: Callable[..., Backend], bin_dir: Path, plugin_dir: Path, tmp_path: Path) -> Backend:
    """OBS's server without its worker; ours finds the executable and the platform `gate`."""
    backend = make_backend(bin_dir, has_worker=False, PYTHONPATH=str(plugin_dir))
    configure(backend, tmp_path)
    return backend


def configure(backend: Backend, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    lock = backend.rundir / "bs_clouduploadworker.lock"
    (home / "clouduploader.conf").write_text(f"[worker]\npass_environment = PYTHONPATH\nobs_lock = {lock}\n")


@pytest.fixture
def worker(server, command):
    """Our worker, ready."""
    started = command(server, "worker")
    server.wait_until(server.has_any_worker, "OBS's server sees our worker")
    return started


def test_jobs_of_the_old_server_are_uploaded_by_our_worker(server, worker, make_gate):
    gate = make_gate()
    job = server.submit(gate.data, IMAGE, target="gate", filename=FILENAME, user='t\u00f6m "&<')
    log = server.wait_for_log(job, f"link {server.spool}/{job}.dir/")
    assert b"of 5000 bytes" in log
    gate.step("end")
    fields = server.wait_for(job, "succeeded")
    assert (fields["details"], fields["user"]) == ("gate-1", 't\u00f6m "&<')
    # as OBS's own worker leaves it: see "on disk" in obs-transcripts.md
    assert re.sub(rb"<created>\d+", b"<created>0", server.status_xml(job)) == (
        b'<clouduploadjob name="1">\n  <state>succeeded</state>\n  <details>gate-1</details>\n  <created>0</created>\n'
        b"  <user>t\xc3\xb6m &quot;&amp;&lt;</user>\n  <target>gate</target>\n  <project>Base:System</project>\n"
        b"  <repository>images</repository>\n  <package>appliance</package>\n  <arch>x86_64</arch>\n"
        b"  <filename>appliance-1.0.x86_64.raw</filename>\n  <size>5000</size>\n</clouduploadjob>\n"
    )
    assert server.files() == {".worker.lock"}
    assert b"Upload took: " in server.log(job)


def test_kill_by_the_old_server_reaches_the_upload_and_frees_the_slot(server, worker, make_gate):
    gates = [make_gate() for _ in range(3)]
    jobs = [server.submit(gate.data, IMAGE, target="gate", filename=FILENAME) for gate in gates]
    server.wait_for_log(jobs[0], "Created gate")
    server.wait_for_log(jobs[1], "Created gate")
    assert server.status(jobs[2])["state"] == "scheduled"  # two at once for one user
    server.kill(jobs[0])
    assert server.wait_for(jobs[0], "failed")["details"] == "killed"
    server.wait_for_log(jobs[2], "Created gate")  # by OBS's worker it would have to wait for its poll
    assert b"Removed gate" in server.log(jobs[0])
    for gate in gates[1:]:
        gate.step("end")
    for job in jobs[1:]:
        server.wait_for(job, "succeeded")


def test_worker_of_obs_does_not_start_beside_ours(server, worker):
    done = subprocess.run(
        [server.bsdir / "server/bs_clouduploadworker"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60
    )
    assert done.returncode != 0
    assert b"bs_clouduploadworker is already running!" in done.stderr


def test_our_worker_does_not_start_beside_that_of_obs_and_takes_over_its_uploads(
    make_backend, bin_dir, plugin_dir, tmp_path, run, command, make_gate
):
    backend = make_backend(bin_dir, PYTHONPATH=str(plugin_dir))
    configure(backend, tmp_path)
    code, _, stderr = run(backend, "worker")
    assert (code, stderr) == (
        75,
        f"clouduploader: OBS's worker works on the spool {backend.spool}: it holds "
        f"{backend.rundir}/bs_clouduploadworker.lock. Only one worker can work on a spool; end that one first.\n",
    )
    gate = make_gate()
    job = backend.submit(gate.data, IMAGE, target="gate", filename=FILENAME)
    backend.wait_for_log(job, "Created gate")
    os.kill(worker_of_obs(backend), signal.SIGKILL)
    backend.wait_until(lambda: not backend.has_any_worker(), "OBS's worker is gone")
    started = command(backend, "worker")
    backend.wait_until(backend.has_any_worker, "ours is there")
    lines = [started.stderr.readline().split(" ", 1)[1] for _ in range(2)]
    assert lines[0].startswith(f'event=ready text="at {backend.spool}')
    assert lines[1].startswith(f'event=adopted job={job} text="user tom, target gate')
    gate.step("end")
    backend.wait_for(job, "succeeded")
    assert f" event=succeeded job={job} text=gate-1 " in started.stderr.readline()
    started.terminate()
    assert started.wait(60) == 0


def worker_of_obs(backend: Backend) -> int:
    """The pid of OBS's worker: whoever has its lock open, and leads no session of an upload."""
    lock = str(backend.rundir / "bs_clouduploadworker.lock")
    for path in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(path.readlink()) == lock:
                return int(path.parts[2])
        except OSError:
            continue
    raise AssertionError("nobody holds the lock")
