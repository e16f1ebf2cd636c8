"""Stand-ins for what the core gives to a platform: journal, clock, reporter, image, context."""

import contextlib
import datetime
import hashlib
import io
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from clouduploader.errors import LocalIOError
from clouduploader.model.disk import (
    Block,
    BlockSource,
    DiskFormat,
    Image,
    ImageFacts,
    ImageStream,
    ReadStats,
    ZeroBlocks,
)
from clouduploader.plugin.cleanup import undone_on_failure
from clouduploader.plugin.context import UploadContext
from clouduploader.plugin.events import Event, ObjectCreated, ObjectRemoved
from clouduploader.plugin.fields import JsonValue
from clouduploader.plugin.objects import CloudObject
from clouduploader.plugin.platform import Platform
from clouduploader.plugin.request import Journal, UploadRequest
from clouduploader.plugin.results import UploadResult
from clouduploader.util.cancel import Cancel
from clouduploader.util.clock import Clock

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
PIECE_BYTES = 1 << 20


class FakeClock(Clock):
    """A clock in which a sleep takes no time.

    Attributes:
        now: Seconds; grows by what was slept.
    """

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Return what has been slept so far."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let the time pass at once."""
        self.now += seconds


class RecordingReporter:
    """A Reporter that keeps what it is told; secrets and control characters are masked, as in a job's log.

    Attributes:
        on_event: Called with each event.
        journal: Hears of what was made and removed, as `made` and `removed`; None for no journal.
        lines: What `line` and `detail` were given, masked.
        events: All events.
        secrets: What is masked, the longest first.
    """

    def __init__(self, on_event: Callable[[Event], None] | None = None, journal: Journal | None = None) -> None:
        self.lines: list[str] = []
        self.events: list[Event] = []
        self.on_event, self.journal = on_event, journal
        self.secrets: list[str] = []

    def line(self, text: str) -> None:
        """Keep it."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        self.lines.append(_CONTROL.sub("?", text))

    def detail(self, text: str) -> None:
        """Keep it among the lines."""
        self.line(text)

    def event(self, event: Event) -> None:
        """Keep it, and pass it on."""
        self.events.append(event)
        if self.journal and isinstance(event, ObjectCreated | ObjectRemoved):
            what = "made" if isinstance(event, ObjectCreated) else "removed"
            thing = event.object
            self.journal.write(what, kind=thing.kind, id=thing.id, region=thing.region)
        if self.on_event:
            self.on_event(event)

    def hide(self, secret: str) -> None:
        """Mask it from now on; the empty string is nothing to hide."""
        if secret:
            self.secrets = sorted([*self.secrets, secret], key=len, reverse=True)  # one may be a part of another

    @property
    def existing(self) -> set[CloudObject]:
        """What was created and not removed, by the events."""
        things: dict[CloudObject, None] = {}
        for event in self.events:
            if isinstance(event, ObjectCreated):
                things[event.object] = None
            elif isinstance(event, ObjectRemoved):
                things.pop(event.object, None)
        return set(things)


class LostUploadError(BaseException):
    """Stands for the end of a process whose upload is another host's by now; nothing may catch it and go on."""


class MemoryJournal:
    """A Journal that lasts as long as the object.

    Args:
        directory: For the platform's own files; made when it is asked for.

    Attributes:
        is_full: Whether there is no room on the disk any more.
        is_lost: Whether another host has the upload by now: then what looks for that raises LostUploadError.
    """

    key = "0123456789abcdef0123456789abcdef"

    def __init__(self, directory: Path) -> None:
        self.is_full = self.is_lost = self.has_successor = False
        self._directory = directory
        self._entries: list[Mapping[str, JsonValue]] = []

    @property
    def directory(self) -> Path:
        """Private to the upload."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._directory

    def entries(self) -> list[Mapping[str, JsonValue]]:
        """What was written."""
        return list(self._entries)

    def write(self, what: str, **values: JsonValue) -> None:
        """Write it with the time, as JSON would have it.

        Raises:
            LocalIOError: There is no room.
        """
        if self.is_full:
            raise LocalIOError("the journal can't be written: No space left on device")
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        self._entries.append(json.loads(json.dumps({"what": what, "time": now, **values})))
        self.ensure_ours()

    def ensure_ours(self) -> None:
        """Look whether the upload is still ours.

        Raises:
            LostUploadError: It is not; the real one kills the process.
        """
        if self.is_lost:
            raise LostUploadError

    def age(self, seconds: float) -> None:
        """Let all entries be older by so many seconds."""
        earlier = datetime.timedelta(seconds=seconds)
        self._entries = [
            {**entry, "time": (datetime.datetime.fromisoformat(str(entry["time"])) - earlier).isoformat()}
            for entry in self._entries
        ]


class MemoryBlocks:
    """The blocks of a raw disk in memory, without a thought for holes.

    Args:
        data: The disk.
        block_bytes: Size of a block.
        zero_blocks: SKIP leaves out those that are all zeros.
    """

    can_reread = False

    def __init__(self, data: bytes, block_bytes: int, zero_blocks: ZeroBlocks = ZeroBlocks.SEND) -> None:
        self._data, self._block_bytes = data, block_bytes
        self._is_skipping = zero_blocks is ZeroBlocks.SKIP
        self._lock, self._next = threading.Lock(), 0
        self._data_blocks = self._zero_blocks = self._skipped_blocks = 0

    def next_into(self, buffer: bytearray) -> Block | None:
        """Fill the buffer unless the next block is all zeros."""
        with self._lock:
            while (start := self._next * self._block_bytes) < len(self._data):
                index, self._next = self._next, self._next + 1
                piece = self._data[start : start + self._block_bytes]
                if piece.count(0) < len(piece):
                    buffer[:] = piece.ljust(self._block_bytes, b"\0")
                    self._data_blocks += 1
                    return Block(index, False)
                if not self._is_skipping:
                    self._zero_blocks += 1
                    return Block(index, True)
                self._skipped_blocks += 1
        return None

    def reread_into(self, index: int, buffer: bytearray) -> None:
        """Fail."""
        raise AssertionError("can_reread is false")

    def position(self) -> int:
        """Return how many bytes have been passed."""
        return min(self._next * self._block_bytes, len(self._data))

    def stats(self) -> ReadStats:
        """Return what came out."""
        digest = hashlib.sha256(self._data[:]).hexdigest()
        return ReadStats(
            size_bytes=len(self._data),
            data_blocks=self._data_blocks,
            zero_blocks=self._zero_blocks,
            hole_blocks=0,
            skipped_blocks=self._skipped_blocks,
            file_sha256=digest,
            raw_sha256=digest,
        )


@contextlib.contextmanager
def opened_blocks(path: Path, block_bytes: int, zero_blocks: ZeroBlocks = ZeroBlocks.SEND) -> Iterator[BlockSource]:
    """The blocks of a file that is not packed; for `UploadRequest.open_blocks`."""
    yield MemoryBlocks(path.read_bytes(), block_bytes, zero_blocks)


def facts_of(image: Image) -> ImageFacts:
    """Say what is known of an image that was not looked into; for `UploadRequest.inspect_image`."""
    return ImageFacts(
        disk_format=DiskFormat.RAW,
        size_bytes=image.size_bytes,
        is_size_exact=True,
        partition_table=None,
        minimum_bytes=0,
        architectures=(),
        boots_uefi=None,
        boots_bios=None,
    )


class _Stream(io.BytesIO):
    """A file as one stream."""

    def __init__(self, data: bytes, digest: str, size_bytes: int | None) -> None:
        super().__init__(data)
        self.size_bytes = size_bytes
        self._hash = hashlib.new(digest)

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        self._hash.update(piece)
        return piece

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(PIECE_BYTES), b"")

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


@contextlib.contextmanager
def opened_stream(path: Path, digest: str, *, is_size_known: bool = True) -> Iterator[ImageStream]:
    """Give a file that is not packed as one stream; for `UploadRequest.open_stream`.

    Args:
        path: The file.
        digest: As hashlib has it.
        is_size_known: Whether the stream tells its size before its end, as that of an image in a .gz does not.
    """
    data = path.read_bytes()
    with _Stream(data, digest, len(data) if is_size_known else None) as stream:
        yield stream


def make_request(image: Image, targetdata: Mapping[str, JsonValue], work_dir: Path) -> UploadRequest:
    """Make a request for an image that is not packed, whatever its name says.

    Args:
        image: Its file must be there.
        targetdata: Right for the platform.
        work_dir: A directory of the test's own.
    """
    return UploadRequest(
        user="o'brien & sons",
        job_name="42",
        arch="x86_64",
        image=image,
        targetdata=targetdata,
        work_dir=work_dir,
        is_by_hand=False,
        measure_image=lambda **_how: image.size_bytes,
        inspect_image=lambda: facts_of(image),
        open_blocks=lambda block_bytes, zero_blocks: opened_blocks(image.path, block_bytes, zero_blocks),
        open_stream=lambda _encoding, digest: opened_stream(image.path, digest),
        check_unchanged=lambda _sha256=None: None,
        journal=MemoryJournal(work_dir / "journal"),
        provenance={"project": "home:tom", "package": "image", "repository": "images", "arch": "x86_64"},
    )


def upload(
    platform: Platform,
    request: UploadRequest,
    reporter: RecordingReporter | None = None,
    cancel: Cancel | None = None,
    clock: Clock | None = None,
) -> UploadResult:
    """Upload as the core does: what a failed upload made is removed again.

    Raises:
        ClouduploaderError: It failed.
    """
    ctx = UploadContext(
        platform, request, reporter or RecordingReporter(), cancel or Cancel(), clock=clock or FakeClock()
    )
    with undone_on_failure(platform, ctx):
        return platform.upload(ctx)
