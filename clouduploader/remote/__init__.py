"""A job server over HTTP: OBS's upload server, or `clouduploader serve`. This is the only client of either.

The requests are those that OBS's source server and frontend make, so that both servers know them.
Nothing of an answer is believed before it is checked: its size is limited, its XML is read by
`jobxml` and `serverxml`, no redirect is followed, and https needs a certificate that this machine trusts. No proxy
is used. Errors are ours: NetworkError where another try may help, and what a server refuses is one
line with its own summary.
"""

import contextlib
import dataclasses
import datetime
import http.client
import os
import re
import socket
import ssl
import tempfile
import urllib.parse
from collections.abc import Iterator
from typing import BinaryIO

from clouduploader import jobxml, serverxml
from clouduploader.errors import (
    ClouduploaderError,
    DeniedError,
    JobFileError,
    NetworkError,
    NoSuchJobError,
    PlatformReplyError,
    ThrottledError,
    TransientError,
    UnavailableError,
    UsageError,
)
from clouduploader.job import Job, JobState
from clouduploader.remote import answers

CONNECT_SECONDS = 30.0  # what TCP needs for four tries (RFC 6298: 1 + 2 + 4 + 8 s), and some
ANSWER_SECONDS = 120.0  # OBS's server has five processes, and whoever comes sixth waits
CONTINUE_SECONDS = 20.0  # for 100-continue; not for ever, for a server need not know it (RFC 9110, 10.1.1)
STALL_SECONDS = 300.0  # a transfer of which not one block moves is broken; thrice what a switch may take
FINISH_SECONDS = 900.0  # a server syncs the whole image before it says yes
QUIET_SECONDS = 60.0  # a log that says nothing for so long is asked for anew: the server may be gone
LAST_WORDS_SECONDS = 5.0  # for the answer of a server that hung up on an image

MAX_JOB_BYTES = 1 << 20  # a job has some hundred bytes
MAX_LIST_BYTES = 256 << 20  # half a million jobs
MAX_REPLY_BYTES = 1 << 16  # `status` and the like, with OBS's details in it
MAX_LOG_BYTES = 1 << 30  # of a log that is kept on disk to be looked at
MAX_SHOWN = 300  # characters of what a server says
BLOCK_BYTES = 1 << 16

_HOST = re.compile(r"(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]+")  # a name, or IPv6
_PATH = re.compile(r"(?:/[!-~]*)?")
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclasses.dataclass(frozen=True)
class LogFacts:
    """What is known of a log that was not read yet.

    Attributes:
        size_bytes: Of the log now.
        changed: When something was written last; None if the server gives no time that there is.
    """

    size_bytes: int
    changed: datetime.datetime | None


class Server:
    """One job server. Holds no connection: each call opens one, and closes it.

    Args:
        url: `http://host:port` or `https://host:port`, perhaps with a path in front of all of the server's own.

    Attributes:
        url: As it is shown.

    Raises:
        UsageError: It is no such URL.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urllib.parse.urlsplit(url)
            host, self._port = parts.hostname or "", parts.port
        except ValueError:
            raise UsageError(f"'{url}' is no URL") from None
        if parts.username is not None or parts.password is not None:
            raise UsageError("the URL of the server has a user in it, but the service knows no passwords")
        if parts.scheme not in ("http", "https") or not _HOST.fullmatch(host):
            raise UsageError(f"'{url}' is not the URL of a server", hint="Such as http://obs.example.org:5452.")
        if parts.query or parts.fragment or not _PATH.fullmatch(parts.path):
            raise UsageError(f"'{url}' is not the URL of a server: it may have a path, and nothing behind it")
        self._host = host
        self._is_tls = parts.scheme == "https"
        self._path = parts.path.rstrip("/")
        self.url = f"{parts.scheme}://{parts.netloc}{self._path}"

    def create(self, job: Job, *, targetdata: bytes) -> Job:
        """Make a job that waits for its image.

        Args:
            job: What is to be done; its name, state, details and time are set by the server.
            targetdata: Its target data.

        Returns:
            The job as the server made it.
        """
        skeleton = jobxml.serialize(dataclasses.replace(job, details=targetdata.hex()))
        data = self._ask("POST", "/cloudupload", MAX_JOB_BYTES, body=skeleton, content_type="text/xml")
        try:
            return jobxml.parse(data)
        except JobFileError as exc:
            raise self._nonsense(f"the new job: {exc.message}") from None

    @contextlib.contextmanager
    def receive(self, name: str) -> Iterator["Transfer"]:
        """Send the image of a job that was created.

        The first byte is sent when the server has said that it wants the image, or nothing for CONTINUE_SECONDS.
        If it does not want it, the job is killed, for else it would wait for ever. A transfer that is
        left before its end is a hang-up: the server fails the job, "unexpected EOF".
        """
        is_wanted = False
        try:
            size_bytes = self.read(name).size or 0
            with self._connection() as connection:
                with self._errors():
                    connection.putrequest("PUT", f"{self._path}/cloudupload/{name}", skip_accept_encoding=True)
                    connection.putheader("Content-Type", "application/octet-stream")
                    connection.putheader("Content-Length", str(size_bytes))
                    connection.putheader("Expect", "100-continue")
                    connection.putheader("Connection", "close")
                    connection.endheaders()
                transfer = Transfer(self, connection, name, size_bytes)
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
            job = jobxml.parse(data)
        except JobFileError as exc:
            raise JobFileError(f"the job {name} of {self.url} is damaged: {exc.message}") from None
        if job.name != name:
            raise self._nonsense(f"the job {job.name} instead of {name}")
        return job

    def read_all(self) -> dict[str, Job | JobFileError]:
        """Ask for all jobs, running and done, or what is wrong with them, by their names."""
        data = self._ask("GET", "/cloudupload", MAX_LIST_BYTES)
        try:
            return dict(serverxml.parse_list(data))
        except JobFileError as exc:
            raise self._nonsense(f"no list of jobs: {exc.message}") from None

    def kill(self, name: str) -> None:
        """Kill a job; nothing changes if it is over.

        Raises:
            NoSuchJobError: There is none of that name.
        """
        self._ask("POST", f"{_job_path(name)}?cmd=kill", MAX_REPLY_BYTES, name=name)

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
            entry = serverxml.parse_reply(data, "directory")
            size_bytes = int(entry["size"])
        except (JobFileError, KeyError, ValueError):
            raise self._nonsense("no directory entry of the log") from None
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
        query = f"start={start}" if end is None else f"start={start}&end={end}&nostream=1"
        with self._connection() as connection:
            response = self._send(connection, "GET", f"{_job_path(name)}/_log?{query}", name=name)
            connection.sock.settimeout(QUIET_SECONDS)
            while True:
                with self._errors():
                    # read1 would wait beyond the end of a known length, before Python 3.13
                    block = response.read1(BLOCK_BYTES) if response.chunked else response.read(BLOCK_BYTES)
                    if not block:
                        answers.check_whole(response)
                        return
                yield block

    def fetch_log(self, name: str, size_bytes: int) -> BinaryIO:
        """Fetch the first bytes of a job's log into a file without a name; the caller closes it.

        Raises:
            PlatformReplyError: It would have more than MAX_LOG_BYTES.
        """
        if size_bytes > MAX_LOG_BYTES:
            raise self._nonsense(f"a log of {size_bytes} bytes, which is too much to look at")
        with contextlib.ExitStack() as undo:
            file = undo.enter_context(tempfile.TemporaryFile())
            for block in self.log(name, start=0, end=size_bytes):
                file.write(block)
                if file.tell() > size_bytes:
                    raise self._nonsense("more of the log than it was asked for")
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
        with self._connection() as connection:
            response = self._send(
                connection, method, target, max_bytes=max_bytes, name=name, body=body, content_type=content_type
            )
            with self._errors():
                data = answers.read_body(response, max_bytes)
        if len(data) > max_bytes:
            raise self._nonsense(f"more than {max_bytes} bytes")
        return data

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        *,
        name: str | None,
        max_bytes: int | None = None,
        body: bytes | None = None,
        content_type: str | None = None,
    ) -> http.client.HTTPResponse:
        headers = {"Connection": "close"} | ({"Content-Type": content_type} if content_type else {})
        with self._errors():
            connection.request(method, self._path + target, body, headers)
            connection.sock.settimeout(ANSWER_SECONDS)
            response = answers.read_head(connection.sock, method, max_bytes)
        self._check(response, name)
        return response

    @contextlib.contextmanager
    def _connection(self) -> Iterator[http.client.HTTPConnection]:
        if self._is_tls:
            context = ssl.create_default_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._host, self._port, timeout=CONNECT_SECONDS, context=context
            )
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_SECONDS)
        with self._errors():
            connection.connect()
        sock = connection.sock
        try:
            yield connection
        finally:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            # Not sock.close(), which would wait for the streams made of it, and these for whoever has our exception.
            os.close(sock.detach())

    def _check(self, response: http.client.HTTPResponse, name: str | None) -> None:
        """Raise what an answer that is no 200 means."""
        status = response.status
        if status == http.client.OK:
            return
        if status in _REDIRECTS:
            place = _one_line(response.headers.get("Location", "nowhere"))
            raise UnavailableError(f"{self.url} sends us to {place}", hint="Give that server's URL if you trust it.")
        summary = self._summary(response)
        if status == http.client.NOT_FOUND and name is not None:
            raise NoSuchJobError(f"there is no job {name} at {self.url}", hint="`clouduploader list` shows the jobs.")
        message = f"the server {self.url} refused: {summary} (HTTP {status})"
        if status in (401, 403) or "access denied" in summary:  # the second is OBS's, with a 500
            raise DeniedError(message)
        if status == http.client.NOT_FOUND:
            raise UnavailableError(message, hint="Is that the URL of a cloud upload server?")
        if status == http.client.TOO_MANY_REQUESTS:
            raise ThrottledError(message)
        if status >= http.client.INTERNAL_SERVER_ERROR or status == http.client.REQUEST_TIMEOUT:
            raise TransientError(message)
        raise PlatformReplyError(message)

    def _summary(self, response: http.client.HTTPResponse) -> str:
        """What a server says of its refusal: the summary of its XML, or else the reason of the status line."""
        try:
            with self._errors():
                fields = serverxml.parse_reply(answers.read_body(response, MAX_REPLY_BYTES), "status")
        except ClouduploaderError:
            fields = {}
        return _one_line(fields.get("summary") or response.reason or "no reason given")

    def _nonsense(self, what: str) -> PlatformReplyError:
        return PlatformReplyError(
            f"the server {self.url} answers with {what}", hint="Is that the URL of a cloud upload server?"
        )

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what sockets and http.client raise into errors of ours."""
        try:
            yield
        except TimeoutError as exc:
            raise NetworkError(f"the server {self.url} did not answer in time") from exc
        except ssl.SSLCertVerificationError as exc:
            raise UnavailableError(
                f"the certificate of {self.url} is not to be trusted: {exc.verify_message}",
                hint="SSL_CERT_FILE can name a file with the certificate of its authority.",
            ) from exc
        except socket.gaierror as exc:
            message = f"the host of {self.url} is not known: {exc.strerror}"
            raise (NetworkError if exc.errno == socket.EAI_AGAIN else UnavailableError)(message) from exc
        except OSError as exc:
            reason = exc.strerror or str(exc) or type(exc).__name__
            raise NetworkError(f"the server {self.url} can't be reached, or hung up: {reason}") from exc
        except http.client.IncompleteRead as exc:
            raise NetworkError(f"the server {self.url} hung up in the middle of its answer") from exc
        except http.client.HTTPException as exc:
            raise PlatformReplyError(f"what answers at {self.url} is no HTTP server ({type(exc).__name__})") from exc


class Transfer:
    """An image on its way; made by `Server.receive` and good inside its block.

    Args:
        server: Who gets it.
        connection: The request's, with its head on the way.
        name: The job.
        size_bytes: What the head has promised.
    """

    def __init__(self, server: Server, connection: http.client.HTTPConnection, name: str, size_bytes: int) -> None:
        self._server = server
        self._connection = connection
        self._name = name
        self._size_bytes = self._left_bytes = size_bytes

    def ask_leave(self) -> None:
        """Wait for the server's word that it wants the image.

        Raises:
            ClouduploaderError: It refused, and got not a byte.
        """
        sock = self._connection.sock
        sock.settimeout(CONTINUE_SECONDS)
        with self._server._errors():
            stream = sock.makefile("rb", 0)
            try:
                line = answers.status_line(stream)
            except TimeoutError:
                return  # a server that does not know 100-continue
            if answers.status_of(line) == http.client.CONTINUE:
                http.client.parse_headers(stream)
                return
            response = answers.rest_of_head(stream, line, "PUT", MAX_REPLY_BYTES)
        self._refuse(response)

    def write(self, data: bytes | memoryview) -> None:
        """Send the next bytes.

        Raises:
            ClouduploaderError: The server refused, or has made the job for a smaller image.
            NetworkError: The connection broke.
        """
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise self._other_size()
        sock = self._connection.sock
        sock.settimeout(STALL_SECONDS)
        try:
            sock.sendall(data)
        except OSError as exc:
            self._hear_last_words()
            raise NetworkError(
                f"the connection to {self._server.url} broke while the image of job {self._name} was sent",
                hint='The server fails the job ("unexpected EOF"); submit the image again.',
            ) from exc

    def finish(self) -> None:
        """Wait for the server's word that it has the whole image; without one, look at the job.

        Raises:
            ClouduploaderError: It refused, or has made the job for a larger image.
            NetworkError: The job failed; or nothing is known of it, and the image may have arrived.
        """
        if self._left_bytes:
            raise self._other_size()
        sock = self._connection.sock
        sock.settimeout(FINISH_SECONDS)
        try:
            with self._server._errors():
                response = answers.read_head(sock, "PUT", MAX_REPLY_BYTES)
        except NetworkError as exc:
            self._look_for(exc)
        else:
            self._server._check(response, None)

    def _look_for(self, doubt: NetworkError) -> None:
        """Find out whether an image has arrived of which the server could not say so: nothing is to be sent twice."""
        try:
            job = self._server.read(self._name)
        except ClouduploaderError:
            job = None
        if job is None or job.state in (JobState.CREATED, JobState.RECEIVING):
            raise NetworkError(
                f"job {self._name} has got all of its image, but {doubt.message}",
                hint=f"`clouduploader inspect --server {self._server.url} {self._name}` tells what became of it.",
            ) from doubt
        if job.state is JobState.FAILED:
            raise NetworkError(
                f"{doubt.message}, and job {self._name} has failed: {_one_line(job.details or 'no reason given')}",
                hint="Submit the image again.",
            ) from doubt

    def _hear_last_words(self) -> None:
        """Raise what a server said before it hung up on us, if it said anything."""
        self._connection.sock.settimeout(LAST_WORDS_SECONDS)
        try:
            with self._server._errors():
                response = answers.read_head(self._connection.sock, "PUT", MAX_REPLY_BYTES)
        except ClouduploaderError:
            return
        self._refuse(response)

    def _other_size(self) -> PlatformReplyError:
        return self._server._nonsense(f"a job for an image of {self._size_bytes} bytes, which is not ours")

    def _refuse(self, response: http.client.HTTPResponse) -> None:
        self._server._check(response, None)
        raise self._server._nonsense("a yes to an image that it has not got")


def _job_path(name: str) -> str:
    if not jobxml.NAME.fullmatch(name):
        raise NoSuchJobError(f"there is no job '{name}'", hint="Jobs are named by numbers.")
    return f"/cloudupload/{name}"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_SHOWN else f"{line[:MAX_SHOWN]}..."
