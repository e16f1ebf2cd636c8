"""Send an image to a job server."""

import abc
from collections.abc import Callable
from typing import NoReturn

from clouduploader.client.connection import ServerConnection
from clouduploader.client.endpoint import ServerEndpoint, one_line
from clouduploader.errors import ClouduploaderError, NetworkError, PlatformReplyError
from clouduploader.model.job import Job, JobState
from clouduploader.util import http1

CONTINUE_SECONDS = 20.0  # for 100-continue; not for ever, for a server need not know it (RFC 9110, 10.1.1)
STALL_SECONDS = 300.0  # a transfer of which not one block moves is broken; thrice what a switch may take
FINISH_SECONDS = 900.0  # a server syncs the whole image before it says yes
HEAD_SECONDS = 60.0  # for an answer that has begun
LAST_WORDS_SECONDS = 5.0  # for the answer of a server that hung up on an image


class Transfer(abc.ABC):
    """Bytes of an image on their way, behind the head of a request that waits for leave.

    Args:
        endpoint: The server that gets them.
        connection: The request's, with its head on the way.
    """

    def __init__(self, endpoint: ServerEndpoint, connection: ServerConnection) -> None:
        self._endpoint = endpoint
        self._connection = connection

    def ask_leave(self) -> None:
        """Wait for the server's word that it wants the bytes.

        Raises:
            ClouduploaderError: It refused, and got not a byte.
        """
        head = self._endpoint.within(CONTINUE_SECONDS + HEAD_SECONDS, self._await_leave)
        if head:
            self._refuse(head)

    def _await_leave(self) -> http1.ResponseHead | None:
        """Return the head of the response, if it is another than that the bytes are wanted."""
        self._connection.sock.settimeout(CONTINUE_SECONDS)
        with self._endpoint.errors():
            try:
                return self._connection.await_continue()
            except TimeoutError:
                return None  # a server or a proxy that does not know 100-continue

    def _head(self, quiet_seconds: float, *, more_seconds: float) -> http1.ResponseHead:
        """Read the head of the response.

        Args:
            quiet_seconds: How long nothing may come.
            more_seconds: How much longer all of it may take.
        """

        def read() -> http1.ResponseHead:
            self._connection.sock.settimeout(quiet_seconds)
            with self._endpoint.errors():
                return self._connection.read_head()

        return self._endpoint.within(quiet_seconds + more_seconds, read)

    def _refuse(self, head: http1.ResponseHead) -> NoReturn:
        """Raise the error that a response means which came before the bytes were sent."""
        self._check(head)
        raise self._endpoint.nonsense("a yes to an image that it has not got")

    @abc.abstractmethod
    def _check(self, head: http1.ResponseHead) -> None:
        """Raise the error that a response means, unless it says that the bytes have arrived."""


class ImageTransfer(Transfer):
    """A whole image on its way; made by `JobServer.receive` and good inside its block.

    Args:
        endpoint: See `Transfer`.
        connection: See `Transfer`.
        name: The job.
        size_bytes: What the head has promised.
        look: Asks the server for the job.
    """

    def __init__(
        self,
        endpoint: ServerEndpoint,
        connection: ServerConnection,
        *,
        name: str,
        size_bytes: int,
        look: Callable[[], Job],
    ) -> None:
        super().__init__(endpoint, connection)
        self._name = name
        self._look = look
        self._size_bytes = self._left_bytes = size_bytes

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
                f"the connection to {self._endpoint.url} broke while the image of job {self._name} was sent",
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
        try:
            head = self._head(FINISH_SECONDS, more_seconds=HEAD_SECONDS)
        except NetworkError as exc:
            self._look_for(exc)
        else:
            self._check(head)

    def _check(self, head: http1.ResponseHead) -> None:
        """Raise the error that a response other than a 200 means, which its body says."""
        self._endpoint.within(HEAD_SECONDS, lambda: self._endpoint.check(self._connection, head, None))

    def _look_for(self, doubt: NetworkError) -> None:
        """Find out whether an image has arrived that the server could not confirm: no image is sent twice."""
        try:
            job = self._look()
        except ClouduploaderError:
            job = None
        if job is None or job.state in (JobState.CREATED, JobState.RECEIVING):
            raise NetworkError(
                f"job {self._name} has got all of its image, but {doubt.message}",
                hint=f"`clouduploader inspect --server {self._endpoint.url} {self._name}` tells what became of it.",
            ) from doubt
        if job.state is JobState.FAILED:
            raise NetworkError(
                f"{doubt.message}, and job {self._name} has failed: {one_line(job.details or 'no reason given')}",
                hint="Submit the image again.",
            ) from doubt

    def _hear_last_words(self) -> None:
        """Raise what a server said before it hung up on us, if it said anything."""
        try:
            head = self._head(LAST_WORDS_SECONDS, more_seconds=0)
        except ClouduploaderError:
            return
        self._refuse(head)

    def _other_size(self) -> PlatformReplyError:
        return self._endpoint.nonsense(f"a job for an image of {self._size_bytes} bytes, which is not ours")
