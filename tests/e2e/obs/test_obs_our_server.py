"""Our server in the place of OBS's: its source server before it, its worker behind it, and our uploader."""

import contextlib
import hashlib
import http.server
import sys
import threading
from pathlib import Path
from urllib.parse import unquote

import pytest
from e2e.obs import our_server
from e2e.obs.obs_backend import JOB_FIELDS, Backend, BackendError

pytestmark = pytest.mark.obs

IMAGE = hashlib.shake_128(b"image").digest(3_000_000)
FILENAME = "appliance-1.0.x86_64.raw"


class RepositoryServer(http.server.BaseHTTPRequestHandler):
    """Has one image, where OBS's repository server has it."""

    def do_GET(self):
        project, repository, arch = (JOB_FIELDS[key] for key in ("project", "repository", "arch"))
        is_there = unquote(self.path).startswith(f"/build/{project}/{repository}/{arch}/")
        self.send_response(200 if is_there else 404)
        self.send_header("Content-Length", str(len(IMAGE)))
        self.end_headers()
        self.wfile.write(IMAGE)

    def log_message(self, *_arguments):
        """Say nothing on stderr."""


class OurBackend(Backend):
    """OBS's source server and worker, with our server in the place of its own."""

    def start(self):
        server_dir = self.bsdir / "server"
        server_dir.mkdir(parents=True, exist_ok=True)
        program = self.bsdir / "our_server"
        program.write_text(f"#!{sys.executable}\n{Path(our_server.__file__).read_text()}")
        program.chmod(0o755)
        (server_dir / "bs_clouduploadserver").symlink_to(program)
        super().start()

    def _is_running(self):
        with contextlib.suppress(ConnectionError):  # between OBS's socket and ours
            return super()._is_running()
        return False


@pytest.fixture
def backend(tmp_path, bin_dir, plugin_dir):
    """Our server between OBS's daemons, and a repository server."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "_pubkey").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    environment = {"CLOUDUPLOADER_HOME": str(home), "PYTHONPATH": str(plugin_dir)}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), RepositoryServer))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        stack.callback(thread.join)
        stack.callback(server.shutdown)
        backend = OurBackend(
            tmp_path / "obs", path_dirs=[bin_dir], environment=environment, reposerver_port=server.server_port
        )
        stack.callback(backend.close)
        backend.start()
        yield backend


def test_frontend_notices_nothing(backend, make_gate):
    """All that OBS's frontend asks for, in the order in which a user makes it ask."""
    gate = make_gate()
    assert b"BEGIN PUBLIC KEY" in backend.ask_source_server("GET", "/cloudupload/_pubkey")
    user = "mls&<chroe> ü+%"
    job = backend.submit_by_source_server(
        gate.data, target="gate", filename=FILENAME, package="kiwi-images:Cloud", user=user
    )
    log = backend.wait_for_log(job, "link ").decode()
    assert f"of {len(IMAGE)} bytes" in log
    assert hashlib.sha256((backend.spool / f"{job}.file").read_bytes()).digest() == hashlib.sha256(IMAGE).digest()
    assert (backend.spool / f"{job}.data").read_bytes() == gate.data
    assert b"<state>uploading</state>" in backend.ask_source_server("GET", f"/cloudupload/{job}")
    gate.step("end")

    fields = backend.wait_for(job, "succeeded")

    assert (fields["details"], fields["user"], fields["package"]) == ("gate-1", user, "kiwi-images:Cloud")
    assert backend.ask_source_server("GET", f"/cloudupload/{job}") == backend.archived(job)
    listed = backend.ask_source_server("GET", f"/cloudupload?name={job}&name=4711")
    assert listed == backend.list_xml(job)
    assert b"Upload took" in backend.ask_source_server("GET", f"/cloudupload/{job}/_log?nostream=1&start=0")
    assert backend.files() == set()
    with pytest.raises(BackendError, match="no such job"):
        backend.status_xml("next")  # which OBS's own server would show
    for target in ("/cloudupload/4711", "/cloudupload/4711/_log?nostream=1&start=0"):
        with pytest.raises(BackendError, match="no such job") as caught:
            backend.ask_source_server("GET", target)
        assert caught.value.status == 404


def test_kill_reaches_an_upload_that_the_old_worker_started(backend, make_gate):
    job = backend.submit_by_source_server(make_gate().data, target="gate", filename=FILENAME)
    backend.wait_for_log(job, "Created gate")

    backend.ask_source_server("POST", f"/cloudupload/{job}?cmd=kill")

    assert backend.status(job)["details"] == "killed"
    backend.wait_until(lambda: not backend.uploads(), "the uploader has ended")
    assert f"Removed gate {FILENAME}." in backend.log(job).decode()
    assert backend.files() == set()
