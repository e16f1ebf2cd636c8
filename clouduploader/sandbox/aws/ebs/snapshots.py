"""Snapshots that are written and read block by block."""

import base64
import collections
import contextlib
import datetime
import hashlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from moto.ec2.models import EC2Backend
from moto.ec2.models.elastic_block_store import Snapshot, Volume

from clouduploader.sandbox.aws.disks import BLOCK_BYTES
from clouduploader.sandbox.aws.ebs.errors import invalid, unknown_snapshot

NO_VOLUME = "vol-ffffffff"  # what EC2 shows for snapshots that are of no volume: copies, and ours
ZERO_DIGEST = hashlib.sha256(bytes(BLOCK_BYTES)).digest()
MAX_REPEATS = 1000  # remembered one by one; the number of all is known anyway


class BlockSnapshot(Snapshot):
    """A snapshot of no volume.

    Args:
        ec2: Of the region.
        snapshot_id: See EC2.
        size_gib: Of the volumes that can be made from it.
        description: See EC2.
        kms_key_id: The ARN of a key if it is encrypted.
        written: Indices and digests of its blocks; None if it is not known which were written.

    Attributes:
        written: See above.
    """

    def __init__(
        self,
        ec2: EC2Backend,
        snapshot_id: str,
        *,
        size_gib: int,
        description: str,
        kms_key_id: str | None,
        written: Mapping[int, bytes] | None,
    ) -> None:
        volume = Volume(ec2, NO_VOLUME, size_gib, None)  # type: ignore[abstract]
        super().__init__(ec2, snapshot_id, volume, description, kms_key_id=kms_key_id)
        self.written = None if written is None else dict(written)
        self.status = "pending"

    @property
    def progress(self) -> str:
        """What DescribeSnapshots shows."""
        return "100%" if self.status == "completed" else "0%"


class DirectSnapshot(BlockSnapshot):
    """A snapshot that was begun by StartSnapshot. Its methods are safe with threads.

    Args:
        ec2: See BlockSnapshot, as what is not named here.
        path: Where its content goes.
        timeout: How long it stays pending without a block.
        now: AWS's time.
        hidden_seconds: How long it is hidden after StartSnapshot.

    Attributes:
        puts: Blocks that were taken, all in all.
        repeats: Those that had been confirmed before: index, whether the content was the same.
        repeat_count: How many repeats there were.
        throttled: Requests for it that were throttled.
    """

    written: dict[int, bytes]

    def __init__(
        self,
        ec2: EC2Backend,
        snapshot_id: str,
        *,
        path: Path,
        timeout: datetime.timedelta,
        now: datetime.datetime,
        hidden_seconds: float,
        size_gib: int,
        description: str,
        kms_key_id: str | None,
    ) -> None:
        super().__init__(
            ec2, snapshot_id, size_gib=size_gib, description=description, kms_key_id=kms_key_id, written={}
        )
        self._path = path
        self._timeout = timeout
        self._last_write = now
        self._visible_at = time.monotonic() + hidden_seconds
        self._ready_at: float | None = None
        self._lock = threading.Lock()
        self.puts = 0
        self.repeat_count = 0
        self.repeats: collections.deque[tuple[int, bool]] = collections.deque(maxlen=MAX_REPEATS)
        self.throttled = 0
        path.touch(mode=0o600)
        with contextlib.suppress(OSError):  # too long for some file systems; blocks make it grow then
            os.truncate(path, self.size_bytes)

    @property
    def size_bytes(self) -> int:
        """Of the volume."""
        return int(self.volume_size) << 30

    @property
    def is_visible(self) -> bool:
        """Whether it is not hidden any more."""
        return time.monotonic() >= self._visible_at

    def advance(self, now: datetime.datetime) -> None:
        """Complete it, or let it fail at its timeout, if it is time."""
        if self.status != "pending":
            return
        if self._ready_at is None:
            if now - self._last_write > self._timeout:
                self.expire()
        elif time.monotonic() >= self._ready_at:
            self.status = "completed"

    def expire(self) -> None:
        """Cancel it, if it still waits for blocks."""
        if self.status == "pending" and self._ready_at is None:
            self.status = "error"

    def put(self, index: int, data: memoryview, digest: bytes, *, now: datetime.datetime) -> None:
        """Take a block; it counts as confirmed.

        Args:
            index: Inside the volume.
            data: Of one block.
            digest: What counts for the checksum of all.
            now: AWS's time.

        Raises:
            EbsError: It is not pending any more.
        """
        self._check_writable()
        # Zeros that overwrite nothing need no space on the disk; data[0]: unless a fault has changed them.
        if digest != ZERO_DIGEST or index in self.written or data[0]:
            try:
                descriptor = os.open(self._path, os.O_WRONLY)
            except FileNotFoundError:  # deleted meanwhile
                raise unknown_snapshot(self.id) from None
            try:
                os.pwrite(descriptor, data, index * BLOCK_BYTES)
            finally:
                os.close(descriptor)
        with self._lock:
            self._check_writable()
            self.puts += 1
            if (before := self.written.get(index)) is not None:
                self.repeat_count += 1
                self.repeats.append((index, before == digest))
            self.written[index] = digest
            self._last_write = now

    def seal(self, count: int, checksum: str | None, *, snapshot_seconds: float) -> None:
        """Complete it.

        Args:
            count: How many blocks the client says there are.
            checksum: LINEAR, in base64; None if it was not given.
            snapshot_seconds: How long it stays pending yet.

        Raises:
            EbsError: It is not pending any more, or is not what the client thinks.
        """
        with self._lock:
            self._check_writable()
            if count != len(self.written):
                raise invalid(f"The number of changed blocks is {len(self.written)}, not {count}.")
            if checksum is not None and checksum != self.linear_checksum():
                raise invalid("The aggregated checksum is not that of the blocks.")
            self._ready_at = time.monotonic() + snapshot_seconds
        if not snapshot_seconds:
            self.status = "completed"

    def linear_checksum(self) -> str:
        """Return the base64 SHA-256 over the digests of all blocks that were written, in order."""
        digests = b"".join(self.written[index] for index in sorted(self.written))
        return base64.b64encode(hashlib.sha256(digests).digest()).decode()

    def report(self) -> dict[str, Any]:
        """Return the control channel's report of it."""
        with self._lock:
            return {
                "region": self.ec2_backend.region_name,
                "state": self.status,
                "size_gib": self.volume_size,
                "encrypted": self.encrypted,
                "blocks": len(self.written),
                "puts": self.puts,
                "repeats": [{"index": index, "same": same} for index, same in self.repeats],
                "repeat_count": self.repeat_count,
                "throttled": self.throttled,
            }

    def _check_writable(self) -> None:
        if self.status != "pending" or self._ready_at is not None:
            raise invalid(f"The snapshot '{self.id}' is not in the pending state.", "INVALID_SNAPSHOT_ID")


def list_blocks(snapshot: Snapshot, path: Path) -> list[int]:
    """List the blocks that ListSnapshotBlocks knows, in order.

    Args:
        snapshot: Any.
        path: Its content; where it is not known which blocks were written, those with something in them.
    """
    written = getattr(snapshot, "written", None)
    return sorted(_data_blocks(path) if written is None else written)


def _data_blocks(path: Path) -> Iterator[int]:
    if not path.exists():
        return
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        start = 0
        while start < end:
            try:
                data = os.lseek(file.fileno(), start, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                return
            hole = os.lseek(file.fileno(), data, os.SEEK_HOLE)
            end_block = -(-hole // BLOCK_BYTES)
            yield from range(data // BLOCK_BYTES, end_block)
            start = end_block * BLOCK_BYTES  # in the middle of a block it would be listed twice
