"""A private OBS cloud-upload backend: Debian's Perl server and worker, and a client for them."""

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlencode
from xml.sax.saxutils import escape

from e2e.obs import obs_supervisor

SERVER_DIR = Path("/usr/lib/obs/server")  # of Debian's obs-server
EXECUTABLE = Path(sys.executable).with_name("clouduploader")  # ours, beside the Python of the tests
SUPERVISOR = Path(obs_supervisor.__file__)
PATIENCE_SECONDS = 60  # a loaded machine is slow, not broken; only a failing test waits that long
POLL_SECONDS = 0.05

JOB_FIELDS = {
    "user": "tom",
    "target": "directory",
    "project": "Base:System",
    "repository": "images",
    "package": "appliance",
    "arch": "x86_64",
    "filename": "appliance-1.0.x86_64.raw.xz",
}
"""What the frontend says about a job, unless a test says otherwise."""

CONFIG = """\
package BSConfig;
our $bsdir = '{bsdir}';
our $rundir = '{rundir}';
our $logdir = '{bsdir}/log';
our $clouduploadserver = 'http://127.0.0.1:{ports[bs_clouduploadserver]}';
our $srcserver = 'http://127.0.0.1:{ports[bs_srcserver]}';
our $reposerver = 'http://127.0.0.1:{reposerver_port}';
our $ipaccess = {{ '127\\..*' => 'rw' }};
1;
"""


class BackendError(Exception):
    """The server's answer to a request it refused.

    Args:
        status: The HTTP status.
        body: What it said.
    """

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status}: {body.decode(errors='replace')}")
        self.status = status


class Backend:
    """Server and worker on a spool of their own.

    Neither knows a `$bsuser`, so they stay who we are. The server's program finds its modules beside
    itself: a directory of symlinks with our BSConfig.pm among them is all it takes.

    Args:
        bsdir: Where OBS keeps everything; made here.
        path_dirs: Come first on the worker's PATH; one has the `clouduploader` that it starts.
        environment: Of the worker, but for PATH.
        prefix: A command that starts its operands elsewhere, for example in a sandbox, with the
            descriptors it was given.
        has_server: Whether OBS's upload server is started; otherwise one of ours must be, at `url`.
        has_worker: Whether OBS's worker is started too.
        reposerver_port: Where on loopback images can be had; then there is a source server too,
            which is what OBS's frontend speaks to.
    """

    def __init__(
        self,
        bsdir: Path,
        *,
        path_dirs: Sequence[Path],
        environment: Mapping[str, str],
        prefix: Sequence[str] = (),
        has_server: bool = True,
        has_worker: bool = True,
        reposerver_port: int | None = None,
    ) -> None:
        self.bsdir = bsdir
        self.spool = bsdir / "cloudupload"
        # Below rundir is a Unix socket, whose path may have 107 bytes (sun_path); pytest's are longer.
        self.rundir = Path(tempfile.mkdtemp(prefix="obs-"))
        self._path_dirs = path_dirs
        self.environment = environment
        self.prefix = prefix
        self._has_server = has_server
        self._has_worker = has_worker
        self._reposerver_port = reposerver_port
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._ports = dict.fromkeys(("bs_clouduploadserver", "bs_srcserver"), 0)

    @property
    def url(self) -> str:
        """Where the upload server is."""
        return f"http://127.0.0.1:{self._ports['bs_clouduploadserver']}"

    def start(self) -> None:
        """Start both daemons, and return when both are ready for a job."""
        server_dir = self.bsdir / "server"
        server_dir.mkdir(parents=True, exist_ok=True)
        (self.bsdir / "log").mkdir(exist_ok=True)
        for entry in SERVER_DIR.iterdir():
            if entry.name != "BSConfig.pm" and not (server_dir / entry.name).is_symlink():
                (server_dir / entry.name).symlink_to(entry)
        programs = ["bs_clouduploadserver", *(["bs_srcserver"] if self._reposerver_port else [])]
        with contextlib.ExitStack() as stack:
            listeners = {name: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for name in programs}
            self._ports |= {name: listener.getsockname()[1] for name, listener in listeners.items()}
            if not self._has_server:
                listeners.pop("bs_clouduploadserver").close()  # ours listens there
            config = CONFIG.format(
                bsdir=self.bsdir, rundir=self.rundir, ports=self._ports, reposerver_port=self._reposerver_port
            )
            (server_dir / "BSConfig.pm").write_text(config)
            arguments = [f"{name}={listener.fileno()}" for name, listener in listeners.items()]
            arguments += ["bs_clouduploadworker"] if self._has_worker else []
            path = os.pathsep.join([*map(str, self._path_dirs), os.defpath])
            log = stack.enter_context((self.bsdir / "log/daemons.log").open("ab"))
            self._supervisor = subprocess.Popen(
                [*self.prefix, sys.executable, str(SUPERVISOR), str(server_dir), *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[listener.fileno() for listener in listeners.values()],
                env={**self.environment, "PATH": path},
                start_new_session=True,
            )
        self.wait_until(self._is_running, "the daemons run")

    def stop(self) -> None:
        """End the daemons and all that they started, by SIGKILL: as a crash of the machine would."""
        if self._supervisor is not None:
            with self._supervisor:
                assert self._supervisor.stdin is not None
                self._supervisor.stdin.close()
                self._supervisor.wait()
            self._supervisor = None

    def close(self) -> None:
        """Stop, and remove what is not below `bsdir`."""
        self.stop()
        shutil.rmtree(self.rundir)

    def uploads(self) -> list[int]:
        """The processes of all uploads: Perl's helpers, uploaders, their children, orphans too."""
        assert self._supervisor is not None
        found = []
        for pid in obs_supervisor.descendants(self._supervisor.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                is_worker = b"bs_clouduploadworker" in command and os.getsid(pid) != pid
                if not is_worker and not any(name.encode() in command for name in self._ports):
                    found.append(pid)
        return found

    def create(self, data: bytes, *, size: int, **fields: str) -> str:
        """Make a job as the source server does.

        Args:
            data: The target data.
            size: What the image will have.
            **fields: See JOB_FIELDS.

        Returns:
            The job's id.
        """
        elements = {**JOB_FIELDS, **fields, "size": str(size), "details": data.hex()}
        # A parser turns a bare carriage return into a newline, so it travels as a reference.
        inner = "".join(f"<{k}>{escape(v, {chr(13): '&#13;'})}</{k}>" for k, v in elements.items())
        return self.create_raw(f"<clouduploadjob>{inner}</clouduploadjob>".encode())

    def create_raw(self, skeleton: bytes) -> str:
        """Make a job from the bytes of its skeleton, and return its id."""
        answer = self._request("POST", "/cloudupload", skeleton, {"Content-Type": "text/xml"})
        return _parse(answer).attrib["name"]

    def put(self, job: str, image: bytes) -> None:
        """Send the whole image; the job is scheduled then."""
        self._request("PUT", f"/cloudupload/{job}", image, {"Content-Type": "application/octet-stream"})

    def submit(self, data: bytes, image: bytes, **fields: str) -> str:
        """Create a job and send its image; return its id."""
        job = self.create(data, size=len(image), **fields)
        self.put(job, image)
        return job

    def submit_by_source_server(self, data: bytes, **fields: str) -> str:
        """Have the source server create a job and fetch its image, as the frontend does.

        Args:
            data: The target data.
            **fields: See JOB_FIELDS.

        Returns:
            The job's id; its image is still on the way.
        """
        query = urlencode({**JOB_FIELDS, **fields})
        headers = {"Content-Type": "application/octet-stream"}
        answer = self._request("POST", f"/cloudupload?{query}", data, headers, program="bs_srcserver")
        return _parse(answer).attrib["name"]

    def ask_source_server(self, method: str, target: str) -> bytes:
        """Let the source server pass a request on, for example `GET /cloudupload/1`."""
        return self._request(method, target, program="bs_srcserver")

    @contextlib.contextmanager
    def sending(self, job: str, size: int, first: bytes) -> Iterator[socket.socket]:
        """Have a part of the image sent and the connection open."""
        with socket.create_connection(
            ("127.0.0.1", self._ports["bs_clouduploadserver"]), timeout=PATIENCE_SECONDS
        ) as connection:
            head = f"PUT /cloudupload/{job} HTTP/1.1\r\nHost: obs\r\nContent-Length: {size}\r\n\r\n"
            connection.sendall(head.encode() + first)
            yield connection

    def status_xml(self, job: str) -> bytes:
        """The job as the server shows it.

        Raises:
            BackendError: 404, it has no such job, or cannot read it.
        """
        return self._request("GET", f"/cloudupload/{job}")

    def status(self, job: str) -> dict[str, str]:
        """The job's fields as the server shows them, absent ones left out."""
        return _fields(_parse(self.status_xml(job)))

    def list_xml(self, *names: str) -> bytes:
        """The list of the named jobs, or of all."""
        query = urlencode([("name", name) for name in names])
        return self._request("GET", f"/cloudupload?{query}" if query else "/cloudupload")

    def list(self, *names: str) -> list[dict[str, str]]:
        """The named jobs, or all, in the server's order, each as `status` shows it."""
        return [_fields(element) for element in _parse(self.list_xml(*names))]

    def kill(self, job: str) -> None:
        """Kill the job as the frontend does; answered at once."""
        self._request("POST", f"/cloudupload/{job}?cmd=kill")

    def log(self, job: str, **query: int) -> bytes:
        """The log, whole or as `start`, `end` and `nostream` say.

        For a job that runs it blocks: without `nostream` until the job ends, with it and `start` at
        the end of the log until there is more.
        """
        return b"".join(self.follow(job, **query))

    def follow(self, job: str, **query: int) -> Iterator[bytes]:
        """The same log piece by piece, as it comes over the wire."""
        target = f"/cloudupload/{job}/_log" + (f"?{urlencode(query)}" if query else "")
        with contextlib.closing(self._connection()) as connection:
            connection.request("GET", target)
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise BackendError(answer.status, answer.read())
            while piece := answer.read1():
                yield piece

    def wake_worker(self) -> None:
        """Let the worker look through the spool, as the server does after a PUT."""
        fifo = os.open(self.bsdir / "events/clouduploadworker/.ping", os.O_WRONLY | os.O_NONBLOCK)
        os.write(fifo, b"x")
        os.close(fifo)

    def wait_for(self, job: str, *states: str) -> dict[str, str]:
        """Wait until the job is in one of the states, and return its fields.

        Raises:
            AssertionError: It ended in another one, or never got there.
        """
        final = ("succeeded", "failed")
        self.wait_until(lambda: self.status(job)["state"] in (*states, *final), f"job {job} is {' or '.join(states)}")
        fields = self.status(job)
        assert fields["state"] in states, f"job {job}: {fields}\n{self.story(job)}"
        return fields

    def wait_for_log(self, job: str, text: str) -> bytes:
        """Wait until the log of a running job says something, by the requests that OBS's web page makes.

        Returns:
            The log so far.

        Raises:
            AssertionError: The job ended before, or never said it.
        """
        self.wait_for(job, "uploading")
        log = b""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text.encode() not in log:
            assert time.monotonic() < deadline, f"job {job} never said: {text}\n{self.story(job)}"
            piece = self.log(job, nostream=1, start=len(log))
            assert piece or self.status(job)["state"] == "uploading", self.story(job)
            log += piece
        return log

    def wait_until(self, is_true: Callable[[], bool], what: str) -> None:
        """Poll for as long as it is reasonable.

        Raises:
            AssertionError: It never became true.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_true():
            assert time.monotonic() < deadline, f"never came true: {what}\n{self.story()}"
            time.sleep(POLL_SECONDS)

    def story(self, *jobs: str) -> str:
        """The logs of jobs and daemons, for a person who wants to know why a test failed."""
        paths = [self.bsdir / "log/daemons.log"]
        for job in jobs:
            paths += [self.spool / f"{job}.log", self.spool / "done" / f"{job}.log"]
        return "\n".join(f"--- {path}\n{path.read_text(errors='replace')}" for path in paths if path.exists())

    def files(self) -> set[str]:
        """What is in the spool but the archive, the counter and small journals: what jobs that ended must not leave."""
        kept = {str(path.relative_to(self.spool)) for path in self.spool.glob("journal/*/*") if path.name != "journal"}
        return {entry.name for entry in self.spool.iterdir()} - {"done", "next", "journal"} | kept

    def archived(self, job: str) -> bytes:
        """The archived job file."""
        return (self.spool / "done" / job).read_bytes()

    def _is_running(self) -> bool:
        return not (self._has_server and self._has_worker) or self.has_any_worker()

    def has_any_worker(self) -> bool:
        """Whether the server thinks that there is a worker."""
        return b'state="dead"' not in self._request("GET", "/workerstatus")

    def _connection(self, program: str = "bs_clouduploadserver") -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._ports[program], timeout=PATIENCE_SECONDS)

    def _request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        program: str = "bs_clouduploadserver",
    ) -> bytes:
        with contextlib.closing(self._connection(program)) as connection:
            connection.request(method, target, body, dict(headers or {}))
            answer = connection.getresponse()
            content = answer.read()
        if answer.status != http.client.OK:
            raise BackendError(answer.status, content)
        return content


def _parse(content: bytes) -> ET.Element:
    return ET.fromstring(content)  # noqa: S314 (written by the backend that we run ourselves)


def _fields(element: ET.Element) -> dict[str, str]:
    return {"name": element.attrib["name"], **{child.tag: child.text or "" for child in element}}
