"""A job server that has the JSON API: `clouduploader serve`. What it sends is checked field by field.

What the API adds: jobs are filtered by the server, a job that waits is tried again, and an image goes in pieces that
stay there if the connection breaks, or this program does. A log that grows is followed by OBS's route, byte for byte.
"""

import base64
import contextlib
import datetime
import http
import json
import urllib.parse
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from clouduploader.client import JobServer, LogFacts, cluster_status, job_name, seconds_for
from clouduploader.client.cluster_status import ClusterStatus
from clouduploader.client.connection import ServerConnection
from clouduploader.client.endpoint import MAX_REPLY_BYTES
from clouduploader.client.transfer import FINISH_SECONDS, HEAD_SECONDS, STALL_SECONDS, Transfer
from clouduploader.errors import (
    ClouduploaderError,
    JobFileError,
    NetworkError,
    TransientError,
    UnavailableError,
)
from clouduploader.model.job import Job, JobState
from clouduploader.util import http1
from clouduploader.util.certificates import ClientTls

ROOT = "/api/v1"
JSON = "application/json"
MAX_PAGE_BYTES = 16 << 20  # 200 jobs have a MiB, the longest ten times that
PAGE_JOBS = 200
TUS = {"Tus-Resumable": "1.0.0"}
STRANGER = "stranger"  # to the API: a client that may do nothing
REFUSALS = {http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN, http.HTTPStatus.MISDIRECTED_REQUEST}
_NO_CLUSTER: Mapping[int, type[ClouduploaderError]] = {http.HTTPStatus.CONFLICT: UnavailableError}
"""What a server without a cluster answers."""
_GIVEN = ("user", "target", "project", "repository", "package", "arch", "filename")
_TEXTS = ("details", "host", *_GIVEN)
_NUMBERS = {"progress": "progress", "tries": "try_", "size": "size", "attempt": "attempt"}


def connect(url: str, token: str | None = None, *, tls: ClientTls | None = None) -> JobServer:
    """Return a server as it can be asked: by the API, or by OBS's routes alone. Asks it once.

    Args:
        url: See `JobServer`, as for the other arguments.
        token: As there.
        tls: As there.

    Raises:
        UsageError: It is no URL.
        ClouduploaderError: The server can't be reached, or lets this client do nothing.
    """
    server = ApiServer(url, token, tls=tls)
    return server if server.answers() else JobServer(url, token, tls=tls)


class ApiServer(JobServer):
    """A job server that has the API; see `JobServer`."""

    def answers(self) -> bool:
        """Return whether the server has the API: OBS's has not.

        Raises:
            ClouduploaderError: It can't be reached, or would refuse all else too: it wants to know who asks.
        """

        def ask() -> tuple[http1.ResponseHead, bytes]:
            with self._endpoint.connection(max_body_bytes=MAX_REPLY_BYTES) as connection, self._endpoint.errors():
                connection.send_head("GET", f"{self._endpoint.path}{ROOT}/me", {})
                connection.sock.settimeout(HEAD_SECONDS)
                head = connection.read_head()
                if head.status in REFUSALS:
                    self._endpoint.check(connection, head, None)
                return head, connection.read_body(MAX_REPLY_BYTES) if head.status == http.HTTPStatus.OK else b""

        head, data = self._endpoint.within(2 * HEAD_SECONDS, ask)
        try:
            kind = json.loads(data)["kind"] if head.status == http.HTTPStatus.OK else None
        except (ValueError, TypeError, KeyError, RecursionError):
            return False
        if kind == STRANGER:
            raise self._endpoint.without_token()
        return bool(kind)

    def read(self, name: str) -> Job:
        """See `JobServer.read`."""
        return self._job(self._document("GET", f"/jobs/{job_name(name)}", job=name), name)

    def find(
        self,
        *,
        users: Collection[str] = (),
        states: Collection[str] = (),
        targets: Collection[str] = (),
        projects: Collection[str] = (),
        is_running: bool = False,
    ) -> tuple[int | None, Iterator[tuple[str, Job | JobFileError]]]:
        """Ask for jobs, newest first; of each kind of filter one value must match.

        Returns:
            How many there are before any filter, None if the server does not tell; and each job with its name, or what
            is wrong with its record, asked for as they are taken.
        """
        wanted: list[tuple[str, str]] = [("limit", str(PAGE_JOBS)), *([("running", "true")] if is_running else [])]
        for key, values in (("user", users), ("state", states), ("target", targets), ("project", projects)):
            wanted += [(key, value) for value in values]
        first = self._page(wanted)
        total = first.get("total")

        def jobs() -> Iterator[tuple[str, Job | JobFileError]]:
            page = first
            while True:
                for entry in page["jobs"]:
                    yield self._listed(entry)
                if page.get("next") is None:
                    return
                page = self._page([*wanted, ("cursor", str(page["next"]))])

        return total if isinstance(total, int) else None, jobs()

    def kill(self, name: str) -> None:
        """See `JobServer.kill`."""
        self._document("POST", f"/jobs/{job_name(name)}/kill", job=name)

    def retry(self, name: str) -> Job:
        """See `JobServer.retry`."""
        return self._job(self._document("POST", f"/jobs/{job_name(name)}/retry", job=name), name)

    def log_facts(self, name: str) -> LogFacts | None:
        """See `JobServer.log_facts`."""
        job = self._document("GET", f"/jobs/{job_name(name)}", job=name)
        size = job.get("log_bytes")
        if size is None:
            return None
        if not isinstance(size, int) or size < 0:
            raise self._endpoint.nonsense("a log of no size")
        return LogFacts(size, _moment(job.get("log_changed")))

    def _ask_for_log(self, connection: ServerConnection, name: str, start: int, end: int | None) -> None:
        """See `JobServer._ask_for_log`."""
        if end is None:
            super()._ask_for_log(connection, name, start, end)
            return
        head = self._send_api(connection, "GET", f"/jobs/{job_name(name)}/log", {"Range": f"bytes={start}-{end - 1}"})
        self._endpoint.check(connection, head, name, expected=(http.HTTPStatus.PARTIAL_CONTENT,))

    # --- the cluster

    def cluster_status(self) -> ClusterStatus:
        """See `JobServer.cluster_status`."""
        found = self._document("GET", "/cluster", max_bytes=MAX_PAGE_BYTES, errors=_NO_CLUSTER)
        try:
            return cluster_status.parse(found)
        except ValueError:
            raise self._endpoint.nonsense("a cluster that makes no sense") from None

    def drain_host(self, host: str, *, is_draining: bool) -> None:
        """See `JobServer.drain_host`."""
        path = f"/cluster/hosts/{urllib.parse.quote(host, safe='')}/drain"
        self._document("POST", path, body=json.dumps({"drain": is_draining}).encode(), errors=_NO_CLUSTER)

    # --- images

    def begin_image(self, *, filename: str, size_bytes: int, fingerprint: str) -> str:
        """Find what the server has of an image already, or begin it.

        Args:
            filename: Its name.
            size_bytes: How large it is.
            fingerprint: Tells it from every other file, and from what it was before it was changed.

        Returns:
            Its id at the server.
        """
        found = self._document("GET", "/images")
        for entry in found.get("images") or ():
            metadata = entry.get("metadata") or {}
            is_it = metadata.get("fingerprint") == fingerprint and entry.get("size") == size_bytes
            if is_it and entry.get("job") is None:
                return self._id(entry)
        metadata = {"filename": filename, "fingerprint": fingerprint}
        encoded = ",".join(f"{key} {base64.b64encode(text.encode()).decode()}" for key, text in metadata.items())
        headers = {**TUS, "Upload-Length": str(size_bytes), "Upload-Metadata": encoded}
        return self._id(self._document("POST", "/images", headers=headers, expected=(http.HTTPStatus.CREATED,)))

    def image_offset(self, image: str) -> int:
        """Ask how much of an image is safely at the server.

        Args:
            image: Its id.
        """

        def ask() -> str:
            with self._endpoint.connection(max_body_bytes=0) as connection:
                head = self._send_api(connection, "HEAD", f"/images/{image}", TUS)
                self._endpoint.check(connection, head, None)
                return head.headers.get("upload-offset", "")

        text = self._endpoint.within(seconds_for(0), ask)
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise self._endpoint.nonsense("no offset of an image")
        return int(text)

    @contextlib.contextmanager
    def send_piece(self, image: str, *, offset_bytes: int, size_bytes: int) -> Iterator["PieceTransfer"]:
        """Send a piece of an image; what the server has got of it stays there, however the block is left.

        Args:
            image: Its id.
            offset_bytes: Where the piece begins.
            size_bytes: How long it is.
        """
        with self._endpoint.connection(max_body_bytes=MAX_REPLY_BYTES) as connection:
            headers = {
                **TUS,
                "Content-Type": "application/offset+octet-stream",
                "Content-Length": str(size_bytes),
                "Upload-Offset": str(offset_bytes),
                "Expect": "100-continue",
            }
            with self._endpoint.errors():
                connection.send_head("PATCH", f"{self._endpoint.path}{ROOT}/images/{image}", headers)
            transfer = PieceTransfer(self._endpoint, connection)
            transfer.ask_leave()
            yield transfer

    def remove_image(self, image: str) -> None:
        """Remove an image of which no job is to be made."""

        def ask() -> None:
            with self._endpoint.connection(max_body_bytes=MAX_REPLY_BYTES) as connection:
                head = self._send_api(connection, "DELETE", f"/images/{image}", TUS)
                self._endpoint.check(connection, head, None, expected=(http.HTTPStatus.NO_CONTENT,))

        self._endpoint.within(seconds_for(0), ask)

    def create_of_image(self, job: Job, *, image: str, targetdata: bytes) -> Job:
        """Make a job of an image that is at the server; asked again, the server makes no second one.

        Args:
            job: See `create`.
            image: The image's id.
            targetdata: See `create`.

        Raises:
            NetworkError: It may have been made; ask again.
        """
        text = targetdata.decode()
        document: dict[str, Any] = {name: getattr(job, name) or "" for name in _GIVEN}
        try:
            data = json.loads(text)
        except ValueError:
            data = text  # encrypted as a whole
        body = json.dumps({**document, "image": image, "data": data}).encode()
        expected = (http.HTTPStatus.OK, http.HTTPStatus.CREATED)
        return self._job(self._document("POST", "/jobs", body=body, expected=expected), None)

    # --- exchanges

    def _page(self, wanted: list[tuple[str, str]]) -> dict[str, Any]:
        page = self._document("GET", f"/jobs?{urllib.parse.urlencode(wanted)}", max_bytes=MAX_PAGE_BYTES)
        if not isinstance(page.get("jobs"), list):
            raise self._endpoint.nonsense("no list of jobs")
        return page

    def _document(
        self,
        method: str,
        target: str,
        *,
        job: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        expected: Collection[int] = (http.HTTPStatus.OK,),
        max_bytes: int = 1 << 20,
        errors: Mapping[int, type[ClouduploaderError]] | None = None,
    ) -> dict[str, Any]:
        """Make a request, and return the JSON object of its answer."""

        def exchange() -> bytes:
            with self._endpoint.connection(max_body_bytes=max_bytes) as connection:
                head = self._send_api(connection, method, target, headers or {}, body)
                self._endpoint.check(connection, head, job, expected=expected, errors=errors)
                with self._endpoint.errors():
                    return connection.read_body(max_bytes)

        return self._endpoint.json_object(self._endpoint.within(seconds_for(max_bytes), exchange))

    def _send_api(
        self,
        connection: ServerConnection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> http1.ResponseHead:
        of_body = {"Content-Length": str(len(body or b""))} if method == "POST" else {}
        if body is not None:
            of_body["Content-Type"] = JSON
        with self._endpoint.errors():
            connection.send_head(method, f"{self._endpoint.path}{ROOT}{target}", {**headers, **of_body})
            if body:
                connection.sock.sendall(body)
            connection.sock.settimeout(HEAD_SECONDS * 2)
            return connection.read_head()

    def _id(self, entry: Mapping[str, Any]) -> str:
        name = entry.get("id")
        if not (isinstance(name, str) and name.isascii() and name.isalnum()):
            raise self._endpoint.nonsense("an image without an id")
        return name

    def _listed(self, entry: Any) -> tuple[str, Job | JobFileError]:  # noqa: ANN401 JSON
        name = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name.isdigit():
            raise self._endpoint.nonsense("a job without a name")
        if entry.get("damage") is not None:
            return name, JobFileError(str(entry["damage"]))
        return name, self._job(entry, name)

    def _job(self, entry: Mapping[str, Any], name: str | None) -> Job:
        """Read a job.

        Args:
            entry: As the server sends it.
            name: Which it must be; None for any.

        Raises:
            JobFileError: It is damaged at the server.
            PlatformReplyError: It is none, or another.
        """
        found = entry.get("id")
        if not isinstance(found, str) or not (found.isascii() and found.isdigit()):
            raise self._endpoint.nonsense("a job without a name")
        if name is not None and found != name:
            raise self._endpoint.nonsense(f"the job {found} instead of {name}")
        if entry.get("damage") is not None:
            raise JobFileError(f"the job {found} of {self.url} is damaged: {entry['damage']}")
        fields: dict[str, Any] = {}
        for key in _TEXTS:
            fields[key] = self._field(entry, key, str)
        for key, attribute in _NUMBERS.items():
            fields[attribute] = self._field(entry, key, int)
        created, since = (_seconds(entry.get(key)) for key in ("created", "since"))
        try:
            state = JobState(str(entry.get("state")))
        except ValueError:
            raise self._endpoint.nonsense("a job in no state") from None
        return Job(name=found, state=state, created=created, since=since, **fields)

    def _field(self, entry: Mapping[str, Any], key: str, kind: type) -> Any:  # noqa: ANN401 of that type
        value = entry.get(key)
        if value is not None and type(value) is not kind:
            raise self._endpoint.nonsense(f"a job whose {key} makes no sense")
        return value


class PieceTransfer(Transfer):
    """A piece of an image on its way; made by `ApiServer.send_piece` and good inside its block."""

    def write(self, data: bytes | memoryview) -> None:
        """Send the next bytes.

        Raises:
            NetworkError: The connection broke.
        """
        self._connection.sock.settimeout(STALL_SECONDS)
        try:
            self._connection.sock.sendall(data)
        except OSError as exc:
            raise NetworkError(f"the connection to {self._endpoint.url} broke while the image was sent") from exc

    def finish(self) -> None:
        """Wait for the server's word that it has the piece, safely on its disk.

        Raises:
            ClouduploaderError: It has not, or did not say so.
        """
        self._check(self._head(FINISH_SECONDS, more_seconds=HEAD_SECONDS))

    def _check(self, head: http1.ResponseHead) -> None:
        if head.status == http.HTTPStatus.CONFLICT:  # an earlier request of ours, whose end the server has not noticed
            raise TransientError(
                f"the server {self._endpoint.url} has another part of the image than it was asked to take"
            )
        self._endpoint.within(
            HEAD_SECONDS,
            lambda: self._endpoint.check(self._connection, head, None, expected=(http.HTTPStatus.NO_CONTENT,)),
        )


def _seconds(text: Any) -> int | None:  # noqa: ANN401 JSON
    """Return a time as the API writes it in s since the epoch; None for what is none."""
    moment = _moment(text)
    return int(moment.timestamp()) if moment else None


def _moment(text: Any) -> datetime.datetime | None:  # noqa: ANN401 JSON
    """Return a time as the API writes it; None for what is none."""
    try:
        return datetime.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
