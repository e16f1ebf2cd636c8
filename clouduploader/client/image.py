"""The image of a job as it comes from the server, or from the object store that the server redirects to."""

import contextlib
import functools
import http
import re
import time
from collections.abc import Callable, Iterator, Mapping

from clouduploader.client.connection import ConnectionOwner, ServerConnection
from clouduploader.client.endpoint import CONNECT_SECONDS, ServerEndpoint
from clouduploader.errors import ClouduploaderError, TransientError, UnavailableError
from clouduploader.util import http1
from clouduploader.util.cancel import Cancel

MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 307, 308)
GOOD = (http.HTTPStatus.OK, http.HTTPStatus.PARTIAL_CONTENT)
HEAD_SECONDS = 20.0  # for the head of a response, or all of a refusal
QUIET_SECONDS = 60.0  # without a byte of the image
TICK_SECONDS = 0.5  # between looks whether the image is still wanted
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")

Check = Callable[[ServerConnection, http1.ResponseHead], None]


class ElsewhereError(TransientError):
    """The image can't be had where the server redirects to; the server itself may send it."""


class ImageAnswer:
    """The bytes of an image on their way. One thread at a time.

    Args:
        endpoint: Where they come from.
        connection: The request's.
        head: Of the response.
        is_elsewhere: See Attributes.

    Attributes:
        etag: Which version of the image it is; "" if the server does not say.
        start: The first byte that comes.
        size_bytes: Of all of the image.
        is_elsewhere: Whether the server has redirected: it comes from an object store.

    Raises:
        PlatformReplyError: It is no image, or a part of one.
    """

    def __init__(
        self,
        endpoint: ServerEndpoint,
        connection: ServerConnection,
        head: http1.ResponseHead,
        *,
        is_elsewhere: bool,
    ) -> None:
        self._endpoint, self._connection = endpoint, connection
        self.is_elsewhere = is_elsewhere
        self.etag = head.headers.get("etag", "")
        length = head.headers.get("content-length", "")
        if not length or head.headers.get("content-encoding", "identity") != "identity":
            raise endpoint.nonsense("an image of no length, or a packed one")
        self.start, end, self.size_bytes = 0, int(length), int(length)
        if head.status == http.HTTPStatus.PARTIAL_CONTENT:
            found = _RANGE.fullmatch(head.headers.get("content-range", ""))
            if not found:
                raise endpoint.nonsense("a part of an image, and not with which")
            self.start, end, self.size_bytes = int(found[1]), int(found[2]) + 1, int(found[3])
        if end - self.start != int(length) or end != self.size_bytes:
            raise endpoint.nonsense("another part of an image than it says")

    def read_into(self, buffer: memoryview, *, check: Callable[[], None]) -> int:
        """Read the next bytes into a buffer.

        Args:
            buffer: Gets them.
            check: Called every TICK_SECONDS; raises if they are wanted no more.

        Returns:
            How many; 0 at the end.

        Raises:
            NetworkError: The connection broke, or nothing came for QUIET_SECONDS.
        """
        ends_at = time.monotonic() + QUIET_SECONDS
        self._connection.sock.settimeout(TICK_SECONDS)
        with self._endpoint.errors():
            while True:
                check()
                try:
                    return self._connection.read_into(buffer)
                except TimeoutError:
                    if time.monotonic() >= ends_at:
                        raise


@contextlib.contextmanager
def open_image(
    endpoint: ServerEndpoint, target: str, *, start: int, etag: str, check: Check, cancel: Cancel
) -> Iterator[ImageAnswer]:
    """Ask for an image, and follow up to MAX_REDIRECTS redirects; the connection is closed when the block ends.

    Args:
        endpoint: The server.
        target: The path of the image there, and what stands behind it.
        start: The first byte that is wanted; all of the image may come nevertheless.
        etag: Of the image at the server: if it has another one now, all of that comes. An object store is not told.
        check: Raises the error that a response of the server means which is neither an image nor a redirect.
        cancel: Once it is requested, there is an answer within seconds, or a NetworkError.

    Raises:
        ElsewhereError: There was a redirect, and what it led to has no image; or there were too many of them.
        ClouduploaderError: What `check` raises, or the server can't be reached.
        PlatformReplyError: See `ImageAnswer`.
    """
    asked, is_elsewhere = endpoint, False
    with contextlib.ExitStack() as stack:
        try:
            for _ in range(MAX_REDIRECTS + 1):
                owner = stack.enter_context(contextlib.closing(ConnectionOwner()))
                checked = functools.partial(asked.check, name=None, expected=GOOD) if is_elsewhere else check
                connection, head = _ask(
                    asked, owner, target, _wanted(start, "" if is_elsewhere else etag), checked, cancel
                )
                if head.status not in REDIRECTS:
                    break
                stack.close()
                is_elsewhere = True
                asked, target = asked.redirected(target, head)
            else:
                raise UnavailableError(f"{endpoint.url} redirects more than {MAX_REDIRECTS} times")
            answer = ImageAnswer(asked, connection, head, is_elsewhere=is_elsewhere)
        except ClouduploaderError as exc:
            if is_elsewhere:
                raise ElsewhereError(exc.message) from exc
            raise
        yield answer


def _wanted(start: int, etag: str) -> dict[str, str]:
    """Return the headers that name the bytes that are wanted."""
    if not start:
        return {}
    return {"Range": f"bytes={start}-", **({"If-Range": etag} if etag else {})}


def _ask(
    endpoint: ServerEndpoint,
    owner: ConnectionOwner,
    target: str,
    headers: Mapping[str, str],
    check: Check,
    cancel: Cancel,
) -> tuple[ServerConnection, http1.ResponseHead]:
    """Connect, ask, and check a response that is no redirect."""

    def ask() -> tuple[ServerConnection, http1.ResponseHead]:
        connection = endpoint.connect(max_body_bytes=None)
        with endpoint.errors():
            owner.take(connection)
            connection.sock.settimeout(HEAD_SECONDS)
            connection.send_head("GET", target, headers)
            head = connection.read_head()
        if head.status not in REDIRECTS:
            check(connection, head)
        return connection, head

    return endpoint.within(CONNECT_SECONDS + HEAD_SECONDS, ask, cancel)
