"""A job server over HTTP: OBS's upload server, or `clouduploader serve`. This package is the only client of either.

The requests here are those that OBS's source server and frontend make, so that both servers know them; `api` asks by
the JSON API where there is one. Nothing of an answer is believed before it is checked: its size is limited, its XML is
read by `job_xml` and `server_xml`. Errors are ours: NetworkError where another try may help, and what a server refuses
is one line with its own summary.
"""

import contextlib
import dataclasses
import datetime
import tempfile
import time
from collections.abc import Iterator
from typing import BinaryIO

from clouduploader.client.cluster_status import ClusterStatus
from clouduploader.client.connection import ServerConnection
from clouduploader.client.endpoint import MAX_REPLY_BYTES, ServerEndpoint
from clouduploader.client.transfer import ImageTransfer
from clouduploader.errors import ClouduploaderError, JobFileError, NoSuchJobError, PlatformReplyError, UnavailableError
from clouduploader.model import job_xml, server_xml
from clouduploader.model.job import Job
from clouduploader.util.certificates import ClientTls
from clouduploader.util.frozen import frozen

ANSWER_SECONDS = 120.0  # OBS's server has five processes, and the sixth client waits
EXCHANGE_SECONDS = 180.0  # for all of an exchange: connecting, waiting for the answer, and some
SLOWEST_BYTES = 1 << 18  # a second, of an answer; a list of 100,000 jobs comes in five minutes by such a line
QUIET_SECONDS = 60.0  # a log that says nothing for so long is asked for anew: the server may be gone

MAX_JOB_BYTES = 1 << 20  # a job has some hundred bytes
MAX_LIST_BYTES = 256 << 20  # half a million jobs
MAX_LOG_BYTES = 1 << 30  # of a log that is kept on disk to be looked at
WORKER = "clouduploadworker"  # its name in OBS's workerstatus


@frozen()
class LogFacts:
    """What is known of a log that was not read yet.

    Attributes:
        size_bytes: Of the log now.
        changed: When something was written last; None if the server gives no time that there is.
    """

    size_bytes: int
    changed: datetime.datetime | None


class JobServer:
    """One job server. Holds no connection: each call opens one, and closes it.

    Args:
        url: `http://host:port` or `https://host:port`, perhaps with a path in front of all of the server's own; or
            `unix:/path`.
        token: Says to it who asks; sent to this server alone, for no redirect is followed. None for none.
        tls: The files with the authorities of its certificate, and with one to show to it; None for no such files.

    Attributes:
        url: As it is shown.
        keeps_accounts: Whether the server has the account of the jobs' user: it knows who that is.
        is_private: Whether what is sent can't be read on its way.

    Raises:
        UsageError: It is no such URL.
    """

    def __init__(self, url: str, token: str | None = None, *, tls: ClientTls | None = None) -> None:
        self._endpoint = ServerEndpoint(url, token, tls=tls)
        self.url = self._endpoint.url
        self.keeps_accounts = token is not None or self._endpoint.socket_path is not None
        self.is_private = self._endpoint.is_private

    def public_key(self) -> bytes | None:
        """Ask for the key that secrets are encrypted for, in PEM; None if the server has none."""
        try:
            return self._ask("GET", "/cloudupload/_pubkey", MAX_REPLY_BYTES)
        except PlatformReplyError:
            return None  # 400, with the path of the missing file

    def create(self, job: Job, *, targetdata: bytes) -> Job:
        """Make a job that waits for its image.

        Args:
            job: What is to be done; its name, state, details and time are set by the server.
            targetdata: Its target data.

        Returns:
            The job as the server made it.
        """
        skeleton = job_xml.serialize(dataclasses.replace(job, details=targetdata.hex()))
        data = self._ask("POST", "/cloudupload", MAX_JOB_BYTES, body=skeleton, content_type="text/xml")
        try:
            return job_xml.parse(data)
        except JobFileError as exc:
            raise self._endpoint.nonsense(f"the new job: {exc.message}") from None

    @contextlib.contextmanager
    def receive(self, name: str) -> Iterator[ImageTransfer]:
        """Send the image of a job that was created.

        The first byte is sent when the server has said that it wants the image, or nothing for CONTINUE_SECONDS.
        If it does not want it, the job is killed, for else it would wait for ever. A transfer that is
        left before its end is a hang-up: the server fails the job, "unexpected EOF".
        """
        is_wanted = False
        try:
            size_bytes = self.read(name).size or 0
            with self._endpoint.connection(max_body_bytes=MAX_REPLY_BYTES) as connection:
                headers = {
                    "Content-Type": "application/octet-stream",
                    "Content-Length": str(size_bytes),
                    "Expect": "100-continue",
                }
                with self._endpoint.errors():
                    connection.send_head("PUT", f"{self._endpoint.path}/cloudupload/{name}", headers)
                transfer = ImageTransfer(
                    self._endpoint, connection, name=name, size_bytes=size_bytes, look=lambda: self.read(name)
                )
                transfer.ask_leave()
                is_wanted = True
                yield transfer
        except ClouduploaderError:
            if not is_wanted:
                with contextlib.suppress(ClouduploaderError):
                    self.kill(name)
            raise

    def read(self, name: str) -> Job:
        """Ask for a job.

        Args:
            name: May come from a command line, and be anything.

        Raises:
            NoSuchJobError: There is none of that name.
            JobFileError: It is one that can't be.
        """
        data = self._ask("GET", _job_path(name), MAX_JOB_BYTES, name=name)
        try:
            job = job_xml.parse(data)
        except JobFileError as exc:
            raise JobFileError(f"the job {name} of {self.url} is damaged: {exc.message}") from None
        if job.name != name:
            raise self._endpoint.nonsense(f"the job {job.name} instead of {name}")
        return job

    def read_all(self) -> dict[str, Job | JobFileError]:
        """Ask for all jobs, running and done, or what is wrong with them, by their names."""
        data = self._ask("GET", "/cloudupload", MAX_LIST_BYTES)
        try:
            return dict(server_xml.parse_list(data))
        except JobFileError as exc:
            raise self._endpoint.nonsense(f"no list of jobs: {exc.message}") from None

    def kill(self, name: str) -> None:
        """Kill a job; nothing changes if it is over.

        Raises:
            NoSuchJobError: There is none of that name.
        """
        self._ask("POST", f"{_job_path(name)}?cmd=kill", MAX_REPLY_BYTES, name=name)

    def retry(self, name: str) -> Job:
        """Have a job that waits for another try started now, and return it.

        Raises:
            UnavailableError: The server can't do that, as OBS's.
            NoSuchJobError: There is none of that name.
            PlatformReplyError: It does not wait.
        """
        raise UnavailableError(f"the server {self.url} can't try the job {name} again: it is OBS's, or an older one")

    def cluster_status(self) -> ClusterStatus:
        """Ask how the cluster is: hosts, queues, and who has which job.

        Raises:
            UnavailableError: The server has no cluster, as OBS's.
            DeniedError: Only administrators may see it.
        """
        raise UnavailableError(f"the server {self.url} has no cluster: it is OBS's, or an older one")

    def drain_host(self, host: str, *, is_draining: bool) -> None:
        """Let a host of the cluster take no more jobs, or take them again.

        Raises:
            UnavailableError: See `cluster_status`.
            DeniedError: As there.
        """
        raise UnavailableError(f"the server {self.url} has no cluster: it is OBS's, or an older one")

    def has_worker(self) -> bool:
        """Ask whether a worker looks after the server's jobs."""
        data = self._ask("GET", f"/workerstatus?arch={WORKER}", MAX_REPLY_BYTES)
        try:
            daemon = server_xml.parse_reply(data, "workerstatus")
        except JobFileError as exc:
            raise self._endpoint.nonsense(f"its workers: {exc.message}") from None
        if daemon.get("type") != WORKER:
            raise self._endpoint.nonsense("no word of its worker")
        return daemon.get("state") == "running"

    def log_facts(self, name: str) -> LogFacts | None:
        """Ask for the size of a job's log; None if it has none, or not yet.

        Raises:
            NoSuchJobError: There is no such job.
        """
        try:
            data = self._ask("GET", f"{_job_path(name)}/_log?view=entry", MAX_REPLY_BYTES, name=name)
        except PlatformReplyError:
            return None  # 400, with the path of the missing file
        try:
            entry = server_xml.parse_reply(data, "directory")
            size_bytes = int(entry["size"])
        except (JobFileError, KeyError, ValueError):
            raise self._endpoint.nonsense("no directory entry of the log") from None
        try:
            changed = datetime.datetime.fromtimestamp(int(entry["mtime"]), datetime.UTC)
        except (KeyError, ValueError, OverflowError, OSError):
            changed = None
        return LogFacts(size_bytes, changed)

    def log(self, name: str, *, start: int, end: int | None = None) -> Iterator[bytes]:
        """Read a job's log, block by block as it comes.

        Args:
            name: The job.
            start: The first byte that is wanted; at most as many as the log has.
            end: The byte behind the last, which must be there; None for all, and for as long as the job runs.

        Raises:
            NoSuchJobError: There is no such job.
            NetworkError: The connection broke, or nothing came for QUIET_SECONDS; all that was yielded is right.
        """
        if start == end:
            return  # OBS's server would wait for more
        with self._endpoint.connection(max_body_bytes=None) as connection:
            self._endpoint.within(EXCHANGE_SECONDS, lambda: self._ask_for_log(connection, name, start, end))
            connection.sock.settimeout(QUIET_SECONDS)
            ends_at = None if end is None else time.monotonic() + seconds_for(end - start)
            while True:
                with self._endpoint.errors():
                    if ends_at is None:  # it grows for as long as the job runs
                        block = connection.read()
                    else:
                        block = self._endpoint.within(ends_at - time.monotonic(), connection.read)
                if not block:
                    return
                yield block

    def _ask_for_log(self, connection: ServerConnection, name: str, start: int, end: int | None) -> None:
        """Send the request for a log, and read the head of its response; see `log`."""
        query = f"start={start}" if end is None else f"start={start}&end={end}&nostream=1"
        self._send(connection, "GET", f"{_job_path(name)}/_log?{query}", name=name)

    def fetch_log(self, name: str, size_bytes: int) -> BinaryIO:
        """Fetch the first bytes of a job's log into a file without a name; the caller closes it.

        Raises:
            PlatformReplyError: It would have more than MAX_LOG_BYTES.
        """
        if size_bytes > MAX_LOG_BYTES:
            raise self._endpoint.nonsense(f"a log of {size_bytes} bytes, which is too much to look at")
        with contextlib.ExitStack() as undo:
            file = undo.enter_context(tempfile.TemporaryFile())
            for block in self.log(name, start=0, end=size_bytes):
                file.write(block)
                if file.tell() > size_bytes:
                    raise self._endpoint.nonsense("more of the log than it was asked for")
            file.flush()
            undo.pop_all()
        return file

    def _ask(
        self,
        method: str,
        target: str,
        max_bytes: int,
        *,
        name: str | None = None,
        body: bytes | None = None,
        content_type: str | None = None,
    ) -> bytes:
        """Make a request, and return the body of its answer, which is a 200.

        Args:
            method: The HTTP method.
            target: The path below the server's own, and the query.
            max_bytes: How long the answer may be.
            name: The job that it is about; without that a 404 means that it is no job server.
            body: What is sent.
            content_type: Of the body.
        """

        def exchange() -> bytes:
            with self._endpoint.connection(max_body_bytes=max_bytes) as connection:
                self._send(connection, method, target, name=name, body=body, content_type=content_type)
                with self._endpoint.errors():
                    return connection.read_body(max_bytes)

        return self._endpoint.within(seconds_for(max_bytes), exchange)

    def _send(
        self,
        connection: ServerConnection,
        method: str,
        target: str,
        *,
        name: str | None,
        body: bytes | None = None,
        content_type: str | None = None,
    ) -> None:
        """Send a request, and read the head of its response, which is a 200."""
        headers = {"Content-Type": content_type} if content_type else {}
        if method == "POST":
            headers["Content-Length"] = str(len(body or b""))
        with self._endpoint.errors():
            connection.send_head(method, self._endpoint.path + target, headers)
            if body:
                connection.sock.sendall(body)
            connection.sock.settimeout(ANSWER_SECONDS)
            head = connection.read_head()
        self._endpoint.check(connection, head, name)


def seconds_for(max_bytes: int) -> float:
    """Return how long an exchange may take whose answer has so many bytes at most."""
    return EXCHANGE_SECONDS + max_bytes / SLOWEST_BYTES


def job_name(name: str) -> str:
    """Return a name that a job can have.

    Raises:
        NoSuchJobError: It is none.
    """
    if not job_xml.NAME.fullmatch(name):
        raise NoSuchJobError(f"there is no job '{name}'", hint="Jobs are named by numbers.")
    return name


def _job_path(name: str) -> str:
    return f"/cloudupload/{job_name(name)}"
