"""The way that OBS's frontend takes: through the source server, which fetches the image itself."""

import http.server
import threading
from urllib.parse import unquote

import pytest
from e2e.obs.obs_backend import JOB_FIELDS, BackendError

pytestmark = pytest.mark.obs

IMAGE = bytes(range(256)) * 1024
FILENAME = "appliance-1.0.x86_64.raw"


class RepositoryServer(http.server.BaseHTTPRequestHandler):
    """Has one image, where OBS's repository server has it."""

    def do_GET(self):
        project, repository, arch = (JOB_FIELDS[key] for key in ("project", "repository", "arch"))
        prefix = f"/build/{project}/{repository}/{arch}/"
        is_there = unquote(self.path).startswith(prefix) and self.path.endswith(f"/{FILENAME}")
        self.send_response(200 if is_there else 404)
        self.send_header("Content-Length", str(len(IMAGE) if is_there else 0))
        self.end_headers()
        self.wfile.write(IMAGE if is_there else b"")

    def log_message(self, *_arguments):
        """Say nothing on stderr."""


@pytest.fixture(params=["OBS's own", "our service"])
def backend(request, make_backend, command, bin_dir, plugin_dir, tmp_path):
    """A backend with a source server, and a repository server for that; all else is OBS's, or ours takes its place."""
    is_obs = request.param == "OBS's own"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), RepositoryServer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        found = make_backend(
            bin_dir,
            has_server=is_obs,
            has_worker=is_obs,
            reposerver_port=server.server_port,
            PYTHONPATH=str(plugin_dir),
        )
        if not is_obs:
            settings = tmp_path / "home" / "clouduploader.conf"
            settings.parent.mkdir()
            lock = found.rundir / "bs_clouduploadworker.lock"
            settings.write_text(
                f"[worker]\nprogram = {bin_dir}/clouduploader\npass_environment = PYTHONPATH\nobs_lock = {lock}\n"
            )
            log = tmp_path / "serve.log"  # nobody would empty a pipe
            around = ["sh", "-c", f'exec "$0" "$@" 2>>{log}']
            command(found, "serve", "--listen", found.url.removeprefix("http://"), around=around)
            found.wait_until(lambda: log.exists() and "event=serving" in log.read_text(), "our server serves")
        yield found
        server.shutdown()
        thread.join()


def test_image_of_a_multibuild_package_is_uploaded(backend, make_gate):
    gate = make_gate()
    job = backend.submit_by_source_server(
        gate.data, target="gate", filename=FILENAME, package="kiwi-images:Cloud", user="mls&<chroe> ü+%"
    )
    log = backend.wait_for_log(job, "link ").decode()
    assert f"of {len(IMAGE)} bytes" in log
    gate.step("end")

    fields = backend.wait_for(job, "succeeded")

    assert fields["details"] == "gate-1"
    assert fields["user"] == "mls&<chroe> ü+%"
    assert fields["package"] == "kiwi-images:Cloud"
    assert backend.ask_source_server("GET", f"/cloudupload/{job}") == backend.archived(job)
    assert b"Upload took" in backend.ask_source_server("GET", f"/cloudupload/{job}/_log?nostream=1&start=0")


def test_kill_through_the_source_server_cleans_up(backend, make_gate):
    job = backend.submit_by_source_server(make_gate().data, target="gate", filename=FILENAME)
    backend.wait_for_log(job, "Created gate")

    backend.ask_source_server("POST", f"/cloudupload/{job}?cmd=kill")

    assert backend.status(job)["details"] == "killed"
    removed = f"Removed gate {FILENAME}.".encode()
    backend.wait_until(lambda: removed in backend.log(job), "the uploader has cleaned up")
    backend.wait_until(lambda: backend.files() <= {".worker.lock"}, "nothing of the job is left")


def test_image_that_is_not_there_makes_no_job(backend, make_gate):
    with pytest.raises(BackendError, match="remote error"):
        backend.submit_by_source_server(make_gate().data, target="gate", filename="other.raw")

    assert backend.list() == []
