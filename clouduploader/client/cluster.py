"""A job server as its upload hosts ask it: they claim jobs, say that they live, and report.

All that is asked here may be asked again when an answer was lost: a claim has an id that its host has made, logs and
journals are sent with their offsets, and what was ended before is none of this host's any more.
"""

import contextlib
import copy
import http
import json
import urllib.parse
from collections.abc import Collection, Mapping
from typing import Any

from clouduploader.client import image
from clouduploader.client.api import JSON, ROOT
from clouduploader.client.connection import ConnectionOwner, ServerConnection
from clouduploader.client.endpoint import MAX_REPLY_BYTES, ServerEndpoint
from clouduploader.client.image import ImageAnswer
from clouduploader.errors import ClouduploaderError, NetworkError, NoSuchJobError, PlatformReplyError
from clouduploader.util import http1
from clouduploader.util.cancel import Cancel
from clouduploader.util.certificates import ClientTls
from clouduploader.util.frozen import frozen

ASK_SECONDS = 10.0  # for an exchange of some KiB; a third of the lease by default
PIECE_SECONDS = 20.0  # for a piece of a log or journal: 1 MiB, synced to the disk
MAX_CLAIM_BYTES = 8 << 20  # target data have one MiB at most, their secrets come twice
LOST = {http.HTTPStatus.CONFLICT, http.HTTPStatus.NOT_FOUND}  # the second of a job that was pruned
READ_SECONDS = 300.0  # for a file of a journal
MAX_FILE_BYTES = 1 << 28  # of a journal; the confirmed blocks of 4 TiB


class LeaseLostError(ClouduploaderError):
    """The job is not, or no longer, this host's: the host has to end its uploader at once, and to change nothing."""


@frozen()
class Claim:
    """What a host names with all that it says of a job.

    Attributes:
        job: The job's id.
        attempt: The number of its publication.
        id: Random, of the host's: no other host can speak for this one.
    """

    job: str
    attempt: int
    id: str


class ClusterServer:
    """The server of an upload host. Keeps one connection; one thread at a time, see `another`.

    Each method that asks may raise NetworkError and other TransientErrors, after which it may be called again.

    Args:
        url: See `JobServer`, as for the other arguments.
        token: Of the role of a worker.
        tls: As there.

    Attributes:
        url: As it is shown.

    Raises:
        UsageError: It is no such URL.
        ConfigError: The files for TLS can't be used.
    """

    def __init__(self, url: str, token: str | None = None, *, tls: ClientTls | None = None) -> None:
        self._endpoint = ServerEndpoint(url, token, tls=tls)
        self._endpoint.load_tls()
        self._owner = ConnectionOwner()  # of what was kept, or is in use
        self._is_closed = False
        self.url = self._endpoint.url

    def another(self) -> "ClusterServer":
        """Return the same server for another thread, with a connection of its own."""
        other = copy.copy(self)
        other._owner = ConnectionOwner()
        return other

    def close(self) -> None:
        """Close the connection, also under a thread that waits for an answer: its call fails, and so does any other."""
        self._is_closed = True
        self._owner.close()

    # --- what a host says

    def greet(self, greeting: Mapping[str, Any]) -> dict[str, Any]:
        """Say that this host is there, what it can do and what it does; return what the server answers."""
        return self._document("/cluster/hosts", None, greeting, seconds=ASK_SECONDS, max_bytes=MAX_REPLY_BYTES)

    def claim(self, claim: Claim, **facts: str | int) -> dict[str, Any]:
        """Claim a job; return all that the host needs for it, secrets included.

        Args:
            claim: The same one again if no answer has come.
            facts: Of the host.

        Raises:
            LeaseLostError: Another attempt has it, or it is over.
        """
        return self._tell(claim, "claim", facts, max_bytes=MAX_CLAIM_BYTES)

    def beat(self, claim: Claim, *, progress: int | None, seconds: float) -> bool:
        """Say that the uploader runs; blocks until the server wants it stopped, or for as long as it wants to wait.

        Args:
            claim: The job.
            progress: Percent; None while none is known.
            seconds: How long the answer may take.

        Returns:
            Whether the job was killed.

        Raises:
            LeaseLostError: The job is no longer this host's.
        """
        return bool(self._tell(claim, "beat", {"progress": progress}, seconds=seconds).get("stop"))

    def append_log(self, claim: Claim, *, offset: int, data: bytes) -> int:
        """Send what was added to the log of this attempt; return how much of it the server has.

        Raises:
            LeaseLostError: The job is no longer this host's.
        """
        return self._offset(_path(claim, "log", _query(claim, offset=offset)), claim, data)

    def append_journal(self, claim: Claim, name: str, *, offset: int, data: bytes, is_whole: bool = False) -> int:
        """Send what was added to a file of the journal; return how much of it the server has, on its disk.

        Args:
            claim: The job.
            name: `journal`, or `platform/NAME`.
            offset: Where in the file it begins.
            data: What was added.
            is_whole: Whether it takes the place of all that the server has of the file.

        Raises:
            LeaseLostError: The job is no longer this host's.
        """
        more = {"replace": "true"} if is_whole else {}
        return self._offset(_path(claim, "journal", _query(claim, file=name, offset=offset, **more)), claim, data)

    def remove_journal(self, claim: Claim, name: str) -> None:
        """Remove a file of the journal, which is `platform/NAME`.

        Raises:
            LeaseLostError: The job is no longer this host's.
        """
        self._offset(_path(claim, "journal", _query(claim, file=name, offset=0, remove="true")), claim, b"")

    def read_journal(self, claim: Claim, name: str) -> bytes:
        """Read a file of the journal; see `append_journal`."""
        target = _path(claim, "journal", _query(claim, file=name))
        return self._exchange("GET", target, claim, {}, seconds=READ_SECONDS, max_bytes=MAX_FILE_BYTES)

    def image(
        self, claim: Claim, *, start: int, etag: str, is_direct: bool, cancel: Cancel
    ) -> contextlib.AbstractContextManager[ImageAnswer]:
        """Ask for the image, on a connection of its own; see `image.open_image`.

        Args:
            claim: The job.
            start: See there.
            etag: See there.
            is_direct: Whether the server itself is to send it, and no object store.
            cancel: See there.

        Raises:
            LeaseLostError: The job is no longer this host's.
        """

        def check(connection: ServerConnection, head: http1.ResponseHead) -> None:
            self._check(connection, head, claim, expected=image.GOOD)

        more = {"direct": "true"} if is_direct else {}
        target = f"{self._endpoint.path}{ROOT}{_path(claim, 'image', _query(claim, **more))}"
        return image.open_image(self._endpoint, target, start=start, etag=etag, check=check, cancel=cancel)

    def done(self, claim: Claim, *, exit_code: int, result: str | None) -> None:
        """Say that the uploader has ended.

        Args:
            claim: The job.
            exit_code: As `subprocess` has it: a signal is negative.
            result: What it gave; None for nothing.

        Raises:
            LeaseLostError: The job is no longer this host's.
        """
        self._tell(claim, "done", {"exit_code": exit_code, "result": result})

    def release(self, claim: Claim, reason: str) -> None:
        """Give a job back for another host, with one line that says why.

        Raises:
            LeaseLostError: The job is no longer this host's.
        """
        self._tell(claim, "release", {"reason": reason})

    # --- exchanges

    def _tell(
        self,
        claim: Claim,
        what: str,
        facts: Mapping[str, Any],
        *,
        seconds: float = ASK_SECONDS,
        max_bytes: int = MAX_REPLY_BYTES,
    ) -> dict[str, Any]:
        """Send a JSON object about a job, and return the one that is answered."""
        document = {"attempt": claim.attempt, "claim": claim.id, **facts}
        return self._document(_path(claim, what), claim, document, seconds=seconds, max_bytes=max_bytes)

    def _document(
        self, target: str, claim: Claim | None, document: Mapping[str, Any], *, seconds: float, max_bytes: int
    ) -> dict[str, Any]:
        headers = {"Content-Type": JSON}
        body = json.dumps(document).encode()
        return self._endpoint.json_object(
            self._exchange("POST", target, claim, headers, body, seconds=seconds, max_bytes=max_bytes)
        )

    def _offset(self, target: str, claim: Claim, data: bytes) -> int:
        """Send bytes, and return the offset that is answered."""
        headers = {"Content-Type": "application/octet-stream"}
        answer = self._exchange("POST", target, claim, headers, data, seconds=PIECE_SECONDS, max_bytes=MAX_REPLY_BYTES)
        offset = self._endpoint.json_object(answer).get("offset")
        if type(offset) is not int or offset < 0:
            raise self._endpoint.nonsense("no offset")
        return offset

    def _exchange(
        self,
        method: str,
        target: str,
        claim: Claim | None,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        seconds: float,
        max_bytes: int,
    ) -> bytes:
        """Make a request on the kept connection, or on a new one if the server has closed that meanwhile."""
        owner = self._owner

        def exchange() -> bytes:
            kept = owner.connection
            if kept:
                try:
                    return ask(kept)
                except NetworkError:
                    if kept.has_begun or self._is_closed:
                        raise
                    kept.close()  # the server had closed it
            made = self._endpoint.connect(max_body_bytes=max_bytes, is_kept=True)
            with self._endpoint.errors():
                owner.take(made)
            return ask(made)

        def ask(connection: ServerConnection) -> bytes:
            if self._is_closed:
                raise NetworkError(f"the connection to {self.url} was closed")
            connection.begin(max_body_bytes=max_bytes)
            connection.sock.settimeout(seconds)
            self._check(connection, self._send(connection, method, target, headers, body), claim)
            with self._endpoint.errors():
                return connection.read_body(max_bytes)

        is_kept = False
        try:
            data = self._endpoint.within(seconds, exchange)
            is_kept = owner.connection is not None and owner.connection.is_reusable
        finally:
            if not is_kept:
                owner.close()  # by which a thread that was left ends too
                self._owner = ConnectionOwner()
        return data

    def _send(
        self,
        connection: ServerConnection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> http1.ResponseHead:
        """Send a request, and read the head of its response."""
        of_body = {} if body is None else {"Content-Length": str(len(body))}
        with self._endpoint.errors():
            connection.send_head(method, f"{self._endpoint.path}{ROOT}{target}", {**headers, **of_body})
            if body:
                connection.sock.sendall(body)
            return connection.read_head()

    def _check(
        self,
        connection: ServerConnection,
        head: http1.ResponseHead,
        claim: Claim | None,
        *,
        expected: Collection[int] = (http.HTTPStatus.OK,),
    ) -> None:
        """Raise the error that a response means whose status is not one that is expected."""
        try:
            name = claim.job if claim else None
            self._endpoint.check(connection, head, name, expected=expected)
        except (NoSuchJobError, PlatformReplyError) as exc:
            if claim and head.status in LOST:
                raise LeaseLostError(exc.message) from exc
            raise


def _path(claim: Claim, what: str, query: str = "") -> str:
    return f"/cluster/jobs/{claim.job}/{what}{query}"


def _query(claim: Claim, **more: str | int) -> str:
    return "?" + urllib.parse.urlencode({"attempt": claim.attempt, "claim": claim.id, **more})
