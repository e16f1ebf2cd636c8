"""Submit an image to the service, over HTTP or into the local spool: what OBS's web page and source server did."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from clouduploader.errors import (
    ClouduploaderError,
    ImageError,
    LocalIOError,
    MissingFileError,
    NetworkError,
    NoSuchAccountError,
    NoSuchJobError,
    StoppedError,
    TargetDataError,
    ThrottledError,
    TransientError,
)
from clouduploader.image import file_digest
from clouduploader.model.job import Details, Job, JobState
from clouduploader.plugin import BytesMoved, Event, Field, JsonValue, PhaseStarted, Platform
from clouduploader.plugin.fields import is_allowed
from clouduploader.store import accounts, keyring, spool, target_data
from clouduploader.store.config import Config
from clouduploader.uploads import registry
from clouduploader.util import processes
from clouduploader.util.frozen import frozen
from clouduploader.worker import lock

if TYPE_CHECKING:  # a command without a server does not load the client
    from clouduploader.client.api import ApiServer

BLOCK_BYTES = 1 << 18  # large enough that calls cost nothing, small enough that a bar moves
PHASE = "send image"
PATIENCE_SECONDS = 300.0  # without a byte that goes over: a line that is away for longer needs a person
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.5, 15.0  # between tries
GO_ON = "The server keeps what it has got: submit the same image again, and the rest is sent."
T = TypeVar("T")


class Receiver(Protocol):
    """What takes an image; a context manager, and the job fails if it is left before `finish`."""

    def write(self, data: bytes | memoryview, /) -> None:
        """Take the next bytes."""

    def finish(self) -> object:
        """Schedule the job: the image is complete."""


class RemoteSink(Protocol):
    """A server that takes jobs: `client.JobServer`.

    Attributes:
        url: As it is shown.
        is_private: Whether what is sent can't be read on its way.
        keeps_accounts: Whether it has the account of the job's user, and fills it in.
    """

    url: str
    keeps_accounts: bool
    is_private: bool

    def create(self, job: Job, *, targetdata: bytes) -> Job:
        """Make a job that waits for its image; its name is the taker's choice."""

    def receive(self, name: str) -> contextlib.AbstractContextManager[Receiver]:
        """Begin to take the image of a job that was created."""

    def public_key(self) -> bytes | None:
        """Give the key that secrets are encrypted for, in PEM; None if there is none."""


Sink = spool.Spool | RemoteSink
"""Takes jobs."""


@frozen(kw_only=True)
class SubmitRequest:
    """What is to be submitted.

    Attributes:
        user: Whose job it is, and whose account it goes into.
        target: The platform's name.
        image_path: The image.
        targetdata: What is to be said of it beyond the account, as JSON; may be encrypted as a whole.
    """

    user: str
    target: str
    image_path: Path
    targetdata: bytes = dataclasses.field(repr=False)


def _prepared(
    request: SubmitRequest, platform: Platform, keys: keyring.Keyring, config: Config, *, has_account: bool
) -> bytes:
    """Make the target data of a request, and check them; without an account they are checked by who fills it in.

    The account's values come first, and those of the request over them; so does the digest that a file beside
    the image promises, where the platform has `Field.SHA256`: that file does not go along. Data that are encrypted
    as a whole are sent as they are: what is in them only the service can see.

    Raises:
        TargetDataError: They are wrong.
        NoSuchAccountError: The user has no account, and the request does not say what would be in one.
    """
    data = request.targetdata
    if not target_data.is_armored(data.decode("utf-8", "replace")):
        given = target_data.parse(data)
        account = _account(request, given, platform, config) if has_account else {}
        data = json.dumps({**account, **_digest(request, platform), **given}).encode()
    if has_account:
        target_data.check(data, platform, keys)
    return data


def submit(
    request: SubmitRequest,
    sink: spool.Spool | RemoteSink,
    *,
    config: Config,
    watch: Callable[[Job | None], Callable[[Event], None]],
    warn: Callable[[str], None],
) -> Job:
    """Make a job, and send its image.

    A server that takes images in pieces gets the image first: what it has of it already, from a call that broke off
    or was killed, is not sent again.

    An image whose digest is promised, by the target data or a file beside it, is held against that before its last
    block is sent, whatever the platform checks on arrival.

    Args:
        request: What is to be submitted.
        sink: The spool or server that takes it.
        config: The settings; its home has the account and the keys.
        watch: Called once with the new job, or None if that comes after its image; what it returns is told how the
            transfer goes.
        warn: Called with what has broken the transfer, each time it is tried again.

    Returns:
        The job, scheduled.

    Raises:
        StoppedError: A signal came, in `Cancel.interruptible`; the job has failed, or will.
        ImageError: It is not the image that was promised; as above.
        TargetDataError: The target data are wrong, or have secrets that would go in clear where others can read them.
        ClouduploaderError: It was refused, or the transfer broke. There is no job, or it has failed or will.
    """
    platform = registry.load(request.target, config)
    keys = keyring.Keyring(config.home.value, config.environment)
    has_account = isinstance(sink, spool.Spool) or not sink.keeps_accounts
    data = _sealed(_prepared(request, platform, keys, config, has_account=has_account), platform, keys, sink)
    path = request.image_path
    promised, digest = _promised_sha256(request, data), hashlib.sha256()
    if path.exists() and not path.is_file():
        raise ImageError(f"the image {path} is not a regular file")
    with contextlib.ExitStack() as stack:
        try:
            image = stack.enter_context(path.open("rb", buffering=0))
            size_bytes = image.seek(0, os.SEEK_END)
            image.seek(0)
        except FileNotFoundError as exc:
            raise MissingFileError(f"there is no image {path}") from exc
        except OSError as exc:
            raise LocalIOError(f"the image {path} can't be read: {exc.strerror}") from exc
        if not size_bytes:
            raise ImageError(f"the image {path} is empty")
        if api := _api_of(sink):
            sender = _PiecesSender(api, image, path, size_bytes, promised, warn)
            return sender.send(_job(request, size_bytes), targetdata=data, tell=watch(None))
        job = sink.create(_job(request, size_bytes), targetdata=data)
        tell = watch(job)
        tell(PhaseStarted(PHASE))
        try:
            with sink.receive(job.name) as receiver:
                buffer = memoryview(bytearray(BLOCK_BYTES))
                done_bytes = 0
                while done_bytes < size_bytes:
                    count = _read(image, buffer[: size_bytes - done_bytes], path)
                    done_bytes += count
                    if promised:
                        digest.update(buffer[:count])
                        if done_bytes == size_bytes:
                            file_digest.check(path.name, digest.hexdigest(), promised)
                    receiver.write(buffer[:count])
                    tell(BytesMoved(done_bytes, size_bytes))
                receiver.finish()
        except StoppedError:
            if isinstance(sink, spool.Spool):
                _fail(sink, job.name)
            raise
    return dataclasses.replace(job, state=JobState.SCHEDULED, details=None)


def _api_of(sink: Sink) -> "ApiServer | None":
    """Return a server that takes images in pieces; None for another, and for a spool."""
    if isinstance(sink, spool.Spool):
        return None
    from clouduploader.client.api import ApiServer

    return sink if isinstance(sink, ApiServer) else None


class _PiecesSender:
    """Sends an image to a server that keeps what it has got of it, and goes on there as often as the line breaks.

    Args:
        server: Gets it.
        image: The image, open.
        path: Its path.
        size_bytes: Its size.
        promised: The SHA-256 that it must have; None for any.
        warn: See `submit`.
    """

    def __init__(
        self,
        server: "ApiServer",
        image: io.FileIO,
        path: Path,
        size_bytes: int,
        promised: str | None,
        warn: Callable[[str], None],
    ) -> None:
        self._server, self._image, self._path, self._size_bytes = server, image, path, size_bytes
        self._promised, self._digest, self._digested_bytes = promised, hashlib.sha256(), 0
        self._warn = warn
        self._buffer = memoryview(bytearray(BLOCK_BYTES))
        self._reached_bytes = 0

    def send(self, job: Job, *, targetdata: bytes, tell: Callable[[Event], None]) -> Job:
        """Send what the server has not got, and make the job of it; see `submit`."""
        tell(PhaseStarted(PHASE))
        fingerprint = self._fingerprint()
        name = self._insistently(
            lambda: self._server.begin_image(
                filename=self._path.name, size_bytes=self._size_bytes, fingerprint=fingerprint
            ),
            trouble=NetworkError,
        )
        try:
            self._insistently(lambda: self._send_rest(name, tell))
            if self._fingerprint() != fingerprint:
                raise ImageError(f"the image {self._path} was changed while it was sent")
        except ImageError:
            with contextlib.suppress(ClouduploaderError):  # if it stays, it expires
                self._server.remove_image(name)
            raise
        return self._insistently(lambda: self._server.create_of_image(job, image=name, targetdata=targetdata))

    def _send_rest(self, name: str, tell: Callable[[Event], None]) -> None:
        offset = self._server.image_offset(name)
        self._digest_up_to(offset)
        tell(BytesMoved(offset, self._size_bytes))
        if offset == self._size_bytes:
            return
        self._image.seek(offset)
        with self._server.send_piece(name, offset_bytes=offset, size_bytes=self._size_bytes - offset) as piece:
            while offset < self._size_bytes:
                count = _read(self._image, self._buffer[: self._size_bytes - offset], self._path)
                self._take_digest(offset, self._buffer[:count])
                offset += count
                piece.write(self._buffer[:count])
                self._reached_bytes = max(self._reached_bytes, offset)
                tell(BytesMoved(offset, self._size_bytes))
            piece.finish()

    def _digest_up_to(self, offset: int) -> None:
        """Digest what the server has already."""
        if self._promised is None:
            return
        self._image.seek(self._digested_bytes)
        while self._digested_bytes < offset:
            count = _read(self._image, self._buffer[: offset - self._digested_bytes], self._path)
            self._take_digest(self._digested_bytes, self._buffer[:count])

    def _take_digest(self, offset: int, data: memoryview) -> None:
        """Digest what was not digested before; hold the image against its promise before its last block is sent."""
        if self._promised is None:
            return
        new = data[max(0, self._digested_bytes - offset) :]
        self._digest.update(new)
        self._digested_bytes += len(new)
        if self._digested_bytes == self._size_bytes:
            file_digest.check(self._path.name, self._digest.hexdigest(), self._promised)

    def _insistently(self, work: Callable[[], T], *, trouble: type[TransientError] = TransientError) -> T:
        """Do it, again after a while if the line breaks, until nothing more has gone over for PATIENCE_SECONDS.

        Args:
            work: Does it; may be done twice.
            trouble: What another try may help against. That the user has too much at the server is told at once.
        """
        given_up, reached, pause = time.monotonic() + PATIENCE_SECONDS, self._reached_bytes, FIRST_PAUSE_SECONDS
        is_told = False
        while True:
            try:
                return work()
            except ThrottledError:
                raise
            except trouble as exc:
                if self._reached_bytes > reached:
                    given_up, pause = time.monotonic() + PATIENCE_SECONDS, FIRST_PAUSE_SECONDS
                    reached, is_told = self._reached_bytes, False
                if time.monotonic() + pause > given_up:
                    raise NetworkError(exc.message, hint=GO_ON) from exc
                if not is_told:
                    self._warn(f"{exc.message}; trying again for {PATIENCE_SECONDS / 60:.0f} minutes")
                    is_told = True
                time.sleep(pause)
                pause = min(2 * pause, LAST_PAUSE_SECONDS)

    def _fingerprint(self) -> str:
        """Return what tells the file from every other one, and from what it was before it was changed."""
        status = os.fstat(self._image.fileno())
        facts = (socket.gethostname(), self._path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        return hashlib.sha256(repr(facts).encode(errors="surrogatepass")).hexdigest()


def has_worker(jobs: spool.Spool, obs_lock: Path | None) -> bool:
    """Tell whether a worker starts the jobs of a spool: ours holds its lock, or OBS's its own.

    Args:
        jobs: The spool.
        obs_lock: See `worker.lock.lock_paths`.
    """
    return any(processes.is_locked(path) for path in lock.lock_paths(jobs, obs_lock))


def _account(
    request: SubmitRequest, given: Mapping[str, JsonValue], platform: Platform, config: Config
) -> dict[str, str]:
    """Return the values of the user's account; none if the request says itself what would be in one.

    Raises:
        NoSuchAccountError: There is neither, and the service needs an account to upload into.
    """
    names = [field.name for field in platform.fields if field.is_of_account]
    if all(given.get(name) for name in names):
        return {}  # also where this user may not read the accounts
    try:
        return accounts.AccountStore(config.home.value).get(request.user, request.target)
    except NoSuchAccountError:
        if any(given.get(name) for name in names) or not platform.needs_account:
            return {}
        raise


def _digest(request: SubmitRequest, platform: Platform) -> dict[str, str]:
    """Return the SHA-256 that the image must have, if a file beside it tells, for the platform to check on arrival."""
    if not any(field.name == Field.SHA256.name for field in platform.fields):
        return {}
    found = file_digest.find(request.image_path, request.image_path.name)
    return {Field.SHA256.name: found} if found else {}


def _sealed(data: bytes, platform: Platform, keys: keyring.Keyring, sink: Sink) -> bytes:
    """Encrypt secrets for the service that takes the job, as OBS does; in clear they go where only it can read them.

    Raises:
        TargetDataError: There is no key, and others could read them on their way; or the key can't take one.
        ClouduploaderError: The server did not say its key.
    """
    if isinstance(sink, spool.Spool):
        return target_data.sealed(data, platform, keys, keys.sealed)  # in clear, it lies in a file of mode 0600
    public_key = functools.cache(sink.public_key)
    return target_data.sealed(
        data,
        platform,
        keys,
        functools.partial(_encrypt_for_server, sink, public_key),
        renew=functools.partial(_encrypt_anew, sink, public_key, keys),
    )


def _encrypt_for_server(server: RemoteSink, public_key: Callable[[], bytes | None], secret: str) -> str:
    if key := public_key():
        return keyring.encrypt_for(key, secret, where=f"the key of {server.url}")
    if server.is_private:
        return secret
    raise TargetDataError(
        f"there are secrets in the target data, and {server.url} has no key to encrypt them for",
        hint="`clouduploader keygen --rsa` makes one there; or use https.",
    )


def _encrypt_anew(server: RemoteSink, public_key: Callable[[], bytes | None], keys: keyring.Keyring, value: str) -> str:
    """Encrypt for a server what is encrypted for this home, as an account's secrets are; else return it as it is."""
    key = public_key()
    try:
        return keyring.encrypt_for(key, keys.decrypt(value), where=f"the key of {server.url}") if key else value
    except ClouduploaderError:  # not for this home; or too long, as only a value for GPG can be
        return value


def _promised_sha256(request: SubmitRequest, data: bytes) -> str | None:
    """Return the SHA-256 that the image must have: that of the target data where it can be read, or of the file."""
    given = None
    if not target_data.is_armored(data.decode("utf-8", "replace")):
        given = target_data.parse(data).get(Field.SHA256.name)
    if isinstance(given, str) and is_allowed(Field.SHA256, given):
        return given
    return file_digest.find(request.image_path, request.image_path.name)


def _job(request: SubmitRequest, size_bytes: int) -> Job:
    return Job(
        name="",
        state=JobState.CREATED,
        user=request.user,
        target=request.target,
        # OBS's server wants all of them; empty ones say that no build service made the image
        project="",
        repository="",
        package="",
        arch="",
        filename=request.image_path.name,
        size=size_bytes,
    )


def _fail(jobs: spool.Spool, name: str) -> None:
    """Fail a job whose image will not come, should the signal have come between two steps of the spool's."""
    with contextlib.suppress(NoSuchJobError), jobs.lock(name) as locked:
        if locked.job.state in (JobState.CREATED, JobState.RECEIVING):
            locked.archive(locked.job.ended(JobState.FAILED, Details.CUT_OFF))


def _read(image: io.FileIO, buffer: memoryview, path: Path) -> int:
    try:
        count = image.readinto(buffer)
    except OSError as exc:
        raise LocalIOError(f"the image {path} can't be read: {exc.strerror}") from exc
    if not count:
        raise ImageError(f"the image {path} became shorter while it was sent")
    return count
