"""The archive of a disk in a bucket: a resumable upload, which another process can go on with after a crash.

A session of Cloud Storage ("Resumable uploads") takes an object in chunks of whole 256 KiB, in order, and tells how
many bytes it has. Its URI opens it without any other credentials, so it lies in the journal's directory and is never
shown. It lasts a week, costs nothing and shows nowhere; an object is there with the last byte, or not at all.

The archive is not kept anywhere: a try that goes on packs the disk again, and passes over what the service has. That is
the same bytes again as long as image and compressor are the same; the CRC-32C up to where the last try knew it tells
whether they are, and that of the whole object, which the service computes itself, whether all of it is right.
"""

import base64
import contextlib
import functools
import json
import secrets
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from clouduploader.errors import (
    AbsentError,
    ClouduploaderError,
    LocalIOError,
    PlatformReplyError,
    TargetDataError,
    TransientError,
)
from clouduploader.model.disk import Encoding, ImageStream
from clouduploader.platforms.gce import labels, rest
from clouduploader.plugin import CloudObject, Context, UploadContext
from clouduploader.plugin.http import Answer
from clouduploader.plugin.transfer import ahead
from clouduploader.util import files, privileges
from clouduploader.util.cancel import Cancel
from clouduploader.util.frozen import frozen

OBJECT = "object"
NAME_PREFIX = "clouduploader-"
GRANULE_BYTES = 256 << 10  # what chunks but the last are a multiple of
CHUNK_BYTES = 8 << 20  # the least that Google advises; two are in memory, one on its way and one being packed
PIECE_BYTES = 256 << 10  # sent between looks at the cancellation
CHUNK_SECONDS = 600.0  # for one chunk and all its tries: 27 KiB/s
SESSION_FILE = "session"
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class ArchiveChangedError(ClouduploaderError):
    """What the service has of the archive is not what the image gives now, or it does not go on with the session."""


@frozen(kw_only=True)
class Archive:
    """The archive in the bucket.

    Attributes:
        thing: The object.
        size_bytes: Of the archive.
        digest: See `labels.digest`.
    """

    thing: CloudObject
    size_bytes: int
    digest: str


@frozen(kw_only=True)
class Session:
    """A resumable upload.

    Attributes:
        name: Of the object.
        uri: Opens the session; a secret.
        sent_bytes: What the service has confirmed.
        crc32c: Of these bytes.
    """

    name: str
    uri: str
    sent_bytes: int = 0
    crc32c: int = 0


@frozen()
class _Chunk:
    """A part of the archive.

    Attributes:
        data: Its bytes.
        start: Its offset.
        crc32c: Of all bytes up to its end.
        is_last: Whether the archive ends with it.
    """

    data: bytearray
    start: int
    crc32c: int
    is_last: bool

    @property
    def end(self) -> int:
        """Where the next one starts."""
        return self.start + len(self.data)


def bucket_of(ctx: Context) -> str:
    """Return the name of the bucket.

    Raises:
        TargetDataError: There is none.
    """
    if not ctx.targetdata.get("bucket"):
        raise TargetDataError("bucket is missing", hint="Give it, or enter it into the user's account.")
    return str(ctx.targetdata["bucket"])


def thing(bucket: str, name: str) -> CloudObject:
    """Return an object as the journal has it."""
    return CloudObject(OBJECT, f"{bucket}/{name}")


def source_url(archive: CloudObject) -> str:
    """Return the URL by which images.insert knows an object, wherever its API is reached."""
    return f"https://storage.googleapis.com/{archive.id}"


def object_url(ctx: Context, archive: CloudObject) -> str:
    """Return the URL of an object."""
    bucket, _, name = archive.id.partition("/")
    client: rest.Client = ctx.client
    return client.storage(f"storage/v1/b/{bucket}/o/{quote(name, safe='')}")


def remove(ctx: Context, archive: CloudObject) -> None:
    """Delete an object.

    Raises:
        AbsentError: There is none.
    """
    rest.send(ctx, "DELETE", object_url(ctx, archive), subject=f"object {archive.id}")


def listed(ctx: Context, key: str | None) -> list[dict[str, Any]]:
    """List the archives in the bucket, those of one upload or of all."""
    bucket = bucket_of(ctx)
    url = ctx.client.storage(f"storage/v1/b/{bucket}/o")
    return rest.pages(ctx, url, subject=f"bucket {bucket}", query={"prefix": f"{NAME_PREFIX}{key or ''}"})


def digest(ctx: UploadContext) -> str:
    """Pack the disk without sending it; return what identifies the archive."""
    with ctx.open_stream(Encoding.TAR_GZ) as stream:
        for _piece in stream:
            pass
        return labels.digest(stream.hexdigest())


def upload(ctx: UploadContext) -> Archive:
    """Send the archive, going on with the session of an earlier try if there is one.

    Raises:
        StoppedError: The upload was cancelled; nothing is left in the bucket.
        TransientError: Another try can go on.
        ClouduploaderError: It failed.
    """
    if session := _load(ctx):
        ctx.reporter.hide(session.uri)
        try:
            return _send(ctx, session, is_new=False)
        except ArchiveChangedError as exc:
            ctx.reporter.line(f"Beginning the archive anew: {exc.message}.")
            ctx.remove([one for one in ctx.resources.to_undo() if one.kind == OBJECT])
            _give_up(ctx, session)
    session = _begin(ctx)
    try:
        return _send(ctx, session, is_new=True)
    except ArchiveChangedError as exc:
        _give_up(ctx, session)
        raise PlatformReplyError(exc.message) from exc


def _begin(ctx: UploadContext) -> Session:
    """Begin a session, and write it down."""
    client, bucket = ctx.client, bucket_of(ctx)
    name = f"{NAME_PREFIX}{ctx.request.journal.key}-{secrets.token_hex(4)}.tar.gz"
    document = {"name": name, "contentType": "application/gzip", "metadata": labels.of_upload(ctx.labels)}
    answer = ctx.retry(
        lambda: rest.send(
            ctx,
            "POST",
            client.storage(f"upload/storage/v1/b/{bucket}/o"),
            subject=f"bucket {bucket}",
            query={"uploadType": "resumable", "ifGenerationMatch": "0"},
            document=document,
        )
    )
    uri = answer.header("Location")
    if not uri.startswith(client.storage("")):  # our token would go there
        raise PlatformReplyError(f"bucket {bucket}: Google began an upload, but said not where in its API it goes on")
    ctx.reporter.hide(uri)
    session = Session(name=name, uri=uri)
    _save(ctx, session)
    return session


def _send(ctx: UploadContext, session: Session, *, is_new: bool) -> Archive:
    """Send what the service has not; the session is given up if the upload can't go on.

    Raises:
        ArchiveChangedError: The session can't be gone on with.
    """
    archive = thing(bucket_of(ctx), session.name)
    try:
        with ctx.open_stream(Encoding.TAR_GZ) as stream:
            found, size_bytes, crc32c = _Sender(ctx, session, archive, is_new=is_new).run(stream)
        _compare(found, archive, size_bytes, crc32c)
    except (TransientError, ArchiveChangedError):
        raise
    except ClouduploaderError:
        _give_up(ctx, session)
        raise
    return Archive(thing=archive, size_bytes=size_bytes, digest=labels.digest(stream.hexdigest()))


class _Sender:
    """Sends the archive's chunks in order.

    Args:
        ctx: The upload.
        session: Which one.
        archive: The object that it makes.
        is_new: Whether the service has nothing yet.
    """

    def __init__(self, ctx: UploadContext, session: Session, archive: CloudObject, *, is_new: bool) -> None:
        self._ctx = ctx
        self._session = session
        self._archive = archive
        self._subject = f"object {session.name}"
        self._position: int | None = 0 if is_new else None  # what the service has; None if that must be asked
        self._found: dict[str, Any] | None = None  # the object, once it is complete

    def run(self, stream: ImageStream) -> tuple[dict[str, Any], int, int]:
        """Send all; return the object as the service describes it, our size in bytes and our CRC-32C."""
        if self._position is None:
            self._look_back()
        with contextlib.closing(ahead(_chunks(stream))) as chunks:
            for chunk in chunks:
                self._send(chunk)
        return self._found or {}, chunk.end, chunk.crc32c

    def _look_back(self) -> None:
        """Ask what the service has of an earlier try."""
        self._ctx.retry(self._ask, subject=self._subject)
        if self._found is None:
            self._ctx.reporter.line(f"Going on with the archive of an earlier try, at byte {self._position}.")
            return
        self._found = rest.lookup(self._ctx, object_url(self._ctx, self._archive), subject=self._subject)
        if self._found is None:
            raise ArchiveChangedError("that of an earlier try was removed")
        self._ctx.resources.made(self._archive)
        self._ctx.reporter.line("The archive of an earlier try is complete.")

    def _send(self, chunk: _Chunk) -> None:
        """Send what the service has not of a chunk, and write down that it has it."""
        known = self._session
        if chunk.end == known.sent_bytes and chunk.crc32c != known.crc32c:
            raise ArchiveChangedError("the image, or what packs it, is another than before")
        if self._found is not None:
            return
        put = functools.partial(self._put, chunk)
        if chunk.is_last:  # before it there is no object
            with self._ctx.creating(OBJECT, token=known.name) as created:
                self._ctx.retry(put, subject=self._subject, seconds=CHUNK_SECONDS)
                created(self._archive.id)
        else:
            self._ctx.retry(put, subject=self._subject, seconds=CHUNK_SECONDS)
            if chunk.end > known.sent_bytes:
                self._session = Session(name=known.name, uri=known.uri, sent_bytes=chunk.end, crc32c=chunk.crc32c)
                _save(self._ctx, self._session)

    def _ask(self) -> None:
        self._take(self._request("bytes */*"))

    def _put(self, chunk: _Chunk) -> None:
        """Send what the service has not of a chunk, once; an answer that does not come leaves that open."""
        if self._position is None:
            self._ask()
        start = self._position or 0
        if self._found is not None or (start >= chunk.end and not chunk.is_last):
            return
        if not chunk.start <= start <= chunk.end:
            raise ArchiveChangedError(f"Google has {start} bytes of the archive where it had {chunk.start}")
        ranged = f"{start}-{chunk.end - 1}" if start < chunk.end else "*"
        body = _Body(memoryview(chunk.data)[start - chunk.start :], self._ctx.cancel)
        checksum = {"X-Goog-Hash": f"crc32c={_as_text(chunk.crc32c)}"} if chunk.is_last else {}
        self._position = None
        self._take(self._request(f"bytes {ranged}/{chunk.end if chunk.is_last else '*'}", body, checksum))
        if self._found is None and (chunk.is_last or self._position != chunk.end):
            raise TransientError(f"{self._subject}: Google has taken {self._position} bytes of {chunk.end}")

    def _request(
        self, content_range: str, body: "_Body | None" = None, headers: Mapping[str, str] = NO_HEADERS
    ) -> Answer:
        try:
            return rest.send(
                self._ctx,
                "PUT",
                self._session.uri,
                subject=self._subject,
                seconds=CHUNK_SECONDS,
                data=body,
                headers={"Content-Range": content_range, **headers},
            )
        except AbsentError:
            raise ArchiveChangedError("Google has the session no more") from None
        except PlatformReplyError as exc:  # of the last chunk if the whole is not what its checksum says
            raise ArchiveChangedError(exc.message) from exc

    def _take(self, answer: Answer) -> None:
        """Take what an answer says of what the service has."""
        if answer.status == rest.RESUME:
            _unit, _, last = answer.header("Range").rpartition("-")
            has_bytes = int(last) + 1 if last.isdecimal() else 0
            self._position = has_bytes - has_bytes % GRANULE_BYTES
        else:
            self._found = rest.document(answer, self._subject)


class _Body:
    """The body of a request, in pieces; may be read again, with a renewed token."""

    def __init__(self, data: memoryview, cancel: Cancel) -> None:
        self._data, self._cancel = data, cancel

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[memoryview]:
        for start in range(0, len(self._data), PIECE_BYTES):
            self._cancel.raise_if_requested()
            yield self._data[start : start + PIECE_BYTES]


def _chunks(stream: ImageStream) -> Iterator[_Chunk]:
    """Cut the archive into chunks; the last is known as such, and only the last is shorter."""
    import google_crc32c

    held, start, crc32c = bytearray(), 0, 0
    for piece in stream:
        room = CHUNK_BYTES - len(held)
        if len(piece) > room:  # something follows the chunk, so it is not the last one
            held += piece[:room]
            crc32c = google_crc32c.extend(crc32c, piece[:room])
            yield _Chunk(held, start, crc32c, is_last=False)
            start, held, piece = start + len(held), bytearray(), piece[room:]
        held += piece
        crc32c = google_crc32c.extend(crc32c, piece)
    yield _Chunk(held, start, crc32c, is_last=True)


def _compare(found: dict[str, Any], archive: CloudObject, size_bytes: int, crc32c: int) -> None:
    """Compare what the service has with what was packed.

    Raises:
        ArchiveChangedError: It is another.
    """
    theirs = (found.get("size"), found.get("crc32c"))
    ours = (str(size_bytes), _as_text(crc32c))
    if theirs != ours:
        raise ArchiveChangedError(
            f"object {archive.id} has {theirs[0]} bytes of CRC-32C {theirs[1]}, not {ours[0]} of {ours[1]}"
        )


def _as_text(crc32c: int) -> str:
    """Write a CRC-32C as Cloud Storage does: base64 of its bytes, the highest first."""
    return base64.b64encode(crc32c.to_bytes(4, "big")).decode()


def _give_up(ctx: UploadContext, session: Session) -> None:
    """End a session and forget it; if that fails, it lapses by itself within a week."""
    ctx.ensure_ours()
    files.discard(ctx.request.journal.directory / SESSION_FILE)
    with contextlib.suppress(ClouduploaderError):  # it answers with an error, 499; "Cancel an upload"
        rest.send(ctx.uncancelled(), "DELETE", session.uri, subject=f"session of {session.name}")


def _load(ctx: UploadContext) -> Session | None:
    """Read the session of an earlier try; None if there is none that can be read."""
    try:
        with files.open_read(ctx.request.journal.directory / SESSION_FILE) as file:
            return Session(**json.loads(file.read()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        ctx.reporter.line("The session of an earlier try can't be read; beginning anew.")
        return None


def _save(ctx: UploadContext, session: Session) -> None:
    """Write the session down."""
    path = ctx.request.journal.directory / SESSION_FILE
    try:
        with privileges.as_owner(path.parent):
            files.replace_file(path, json.dumps(vars(session)).encode(), mode=files.PRIVATE_MODE)
    except OSError as exc:
        raise LocalIOError(f"{path} can't be written: {exc.strerror}") from exc
