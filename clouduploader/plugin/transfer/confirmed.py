"""Which chunks of an upload the cloud has confirmed, each with its digest: what a resume needs.

The file is a magic and records of 40 bytes: index (32 bits), SHA-256, and a CRC-32 of these, little-endian.
It is only ever appended to. A record that was torn by a crash is cut off when it is opened again: its chunk
is then sent once more.
"""

import contextlib
import errno
import functools
import hashlib
import os
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from clouduploader.errors import ClouduploaderError, LocalIOError
from clouduploader.util import files, privileges

MAGIC = b"CLCHUNK1"
DIGEST_BYTES = 32
MAX_CHUNKS = 1 << 27  # 64 TiB, the largest disk of any cloud, in chunks of half a mebibyte
_RECORD = struct.Struct("<I32sI")
_HEAD = struct.Struct("<I32s")
_READ_BYTES = _RECORD.size * 25_000  # about 1 MB at once


class ContentChangedError(ClouduploaderError):
    """The cloud has a chunk of other content than the image: the upload can't be resumed with it."""


@functools.cache
def zero_digest(chunk_bytes: int) -> bytes:
    """Return the SHA-256 of a chunk of zeros."""
    return hashlib.sha256(bytes(chunk_bytes)).digest()


class ConfirmedChunks:
    """The confirmed chunks of one upload, for example of one snapshot or blob. A context manager, which closes it.

    Its methods may be called by several threads. Needs 33 bytes of memory for each chunk up to the last confirmed one.

    Args:
        path: The file, in `Journal.directory`, named after what the chunks go into; made if it is not there.
        chunk_bytes: The size of a chunk; always the same for one file.

    Attributes:
        chunk_bytes: As given.

    Raises:
        LocalIOError: It can't be read or written, or is another file.
    """

    def __init__(self, path: Path, chunk_bytes: int) -> None:
        self.chunk_bytes = chunk_bytes
        self._path = path
        self._lock = threading.Lock()
        self._digests = bytearray()
        self._is_confirmed = bytearray()  # a byte a chunk, 0 or 1
        self._count = 0
        try:
            with privileges.as_owner(path.parent):
                self._file = files.open_regular(path, os.O_RDWR | os.O_APPEND, mode=files.PRIVATE_MODE)
        except OSError as exc:
            raise self._failed(exc) from exc
        try:
            self._end = self._load()
        except OSError as exc:
            os.close(self._file)
            raise self._failed(exc) from exc
        except LocalIOError:
            os.close(self._file)
            raise

    def __enter__(self) -> "ConfirmedChunks":
        """Give itself."""
        return self

    def __exit__(self, *_details: object) -> None:
        """Close it."""
        self.close()

    @property
    def count(self) -> int:
        """How many chunks are confirmed, each counted once."""
        return self._count

    def confirmed(self, index: int) -> bytes | None:
        """Return the digest of a confirmed chunk; None for others."""
        if index >= len(self._is_confirmed) or not self._is_confirmed[index]:
            return None
        return bytes(self._digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES])

    def has(self, index: int, digest: bytes) -> bool:
        """Tell whether a chunk is confirmed.

        Raises:
            ContentChangedError: It is, with another digest.
        """
        known = self.confirmed(index)
        if known is not None and known != digest:
            raise ContentChangedError(f"block {index} is another one than was confirmed before")
        return known is not None

    def confirm(self, pairs: Iterable[tuple[int, bytes]]) -> None:
        """Note that the cloud has confirmed chunks, each given by index and digest.

        They are in the file when this returns: they survive this process, and the machine after `sync`.

        Raises:
            LocalIOError: They can't be written. Then none of them counts.
            ContentChangedError: One was confirmed with another digest before.
        """
        with self._lock:
            new = [pair for pair in pairs if not self.has(*pair)]
            self._append(b"".join(map(_record, new)))
            for index, digest in new:
                self._note(index, digest)

    def check_rest(self, visited: bytearray) -> None:
        """Make sure that confirmed chunks which the image leaves out are zeros.

        Args:
            visited: Not 0 at the index of each chunk that the image did hand out.

        Raises:
            ContentChangedError: One has something in it.
        """
        zeros = zero_digest(self.chunk_bytes)
        for start, end in self._runs():
            for index in range(start, end):
                if not (index < len(visited) and visited[index]) and self.confirmed(index) != zeros:
                    raise ContentChangedError(f"block {index} is a hole in the image, and was confirmed with data")

    def digest_of_digests(self) -> bytes:
        """Return the SHA-256 of the digests of all confirmed chunks in ascending order."""
        total = hashlib.sha256()
        with self._lock, memoryview(self._digests) as digests:
            for start, end in self._runs():
                total.update(digests[start * DIGEST_BYTES : end * DIGEST_BYTES])
        return total.digest()

    def content_digest(self, total_chunks: int) -> str:
        """Return what identifies the content, whatever the packing and whatever became of zeros.

        Args:
            total_chunks: Of the whole disk; those that are not confirmed count as zeros.

        Returns:
            The SHA-256 over the digests of all chunks in order, in hex.
        """
        total = hashlib.sha256()
        position = 0
        with self._lock, memoryview(self._digests) as digests:
            for start, end in self._runs():
                self._add_zeros(total, start - position)
                total.update(digests[start * DIGEST_BYTES : end * DIGEST_BYTES])
                position = end
        self._add_zeros(total, total_chunks - position)
        return total.hexdigest()

    def sync(self) -> None:
        """Bring all that was confirmed to the disk. Blocks; `confirm` goes on meanwhile.

        Raises:
            LocalIOError: It failed.
        """
        try:
            os.fdatasync(self._file)
        except OSError as exc:
            raise self._failed(exc) from exc

    def close(self) -> None:
        """Bring all to the disk and close the file.

        Raises:
            LocalIOError: It failed.
        """
        try:
            self.sync()
        finally:
            os.close(self._file)

    def _append(self, records: bytes) -> None:
        try:
            if os.write(self._file, records) < len(records):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as exc:
            with contextlib.suppress(OSError):  # half a record would hide all that come after it
                os.ftruncate(self._file, self._end)
            raise self._failed(exc) from exc
        self._end += len(records)

    def _note(self, index: int, digest: bytes) -> None:
        missing = index + 1 - len(self._is_confirmed)
        if missing > 0:
            self._is_confirmed.extend(bytes(missing))
            self._digests.extend(bytes(missing * DIGEST_BYTES))
        self._count += not self._is_confirmed[index]
        self._is_confirmed[index] = 1
        self._digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES] = digest

    def _runs(self) -> Iterator[tuple[int, int]]:
        """Yield ranges of confirmed chunks."""
        end = 0
        while (start := self._is_confirmed.find(1, end)) >= 0:
            end = self._is_confirmed.find(0, start)
            end = len(self._is_confirmed) if end < 0 else end
            yield start, end

    def _load(self) -> int:
        """Read the file; returns where its last whole record ends."""
        magic = os.pread(self._file, len(MAGIC), 0)
        if magic != MAGIC and magic.strip(b"\0") and not MAGIC.startswith(magic):
            raise LocalIOError(f"{self._path} is not a log of confirmed chunks")
        if magic != MAGIC:
            os.ftruncate(self._file, 0)
            os.write(self._file, MAGIC)
            return len(MAGIC)
        end = len(MAGIC)
        while True:
            piece = os.pread(self._file, _READ_BYTES, end)
            whole = piece[: len(piece) // _RECORD.size * _RECORD.size]
            for index, digest, crc in _RECORD.iter_unpack(whole):
                if crc != zlib.crc32(_HEAD.pack(index, digest)) or index >= MAX_CHUNKS:
                    break
                self._note(index, digest)
                end += _RECORD.size
            else:
                if whole:
                    continue
            os.ftruncate(self._file, end)
            return end

    def _add_zeros(self, total: "hashlib._Hash", count: int) -> None:
        """Add the digests of chunks of zeros, a thousand at once."""
        many = zero_digest(self.chunk_bytes) * 1000
        for done in range(0, count, 1000):
            total.update(many[: min(1000, count - done) * DIGEST_BYTES])

    def _failed(self, exc: OSError) -> LocalIOError:
        return LocalIOError(f"the log of confirmed chunks {self._path} fails: {exc.strerror or exc}")


def _record(pair: tuple[int, bytes]) -> bytes:
    return _RECORD.pack(*pair, zlib.crc32(_HEAD.pack(*pair)))
