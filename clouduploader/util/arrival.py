"""A file that another process still writes, from its beginning to its end: how much of it is there.

The writer makes the file with its size at once, writes it in order, its last bytes perhaps before all others, and
tells of that by a file in memory, whose descriptor the readers inherit. Nothing is ever taken back.
"""

import errno
import os
import struct
import time
import zlib
from collections.abc import Mapping

from clouduploader.errors import ConfigError, TransientError
from clouduploader.util.cancel import Cancel

FD_VARIABLE = "CLOUDUPLOADER_IMAGE_FD"
"""Names the descriptor of the file in memory; where it is not set, images are all there."""
LOOK_SECONDS = 0.05
_COMING, _WHOLE, _FAILED = range(3)
_RECORD = struct.Struct("<QQQQ")  # bytes from the beginning, where the last ones begin, time of the last change, state
_CHECKED = struct.Struct(f"<{_RECORD.size}sI")  # with a CRC-32: a reader may catch half of what is just written


class ArrivalWriter:
    """The writer's side; the file is its own to make. A context manager: what is not whole at its end has failed.

    Attributes:
        descriptor: Of the file in memory; closed with the context.
    """

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("arrival", os.MFD_CLOEXEC)
        self._have_bytes, self._end_offset, self._state = 0, (1 << 64) - 1, _COMING
        self._write(0)

    def __enter__(self) -> "ArrivalWriter":
        """Give itself."""
        return self

    def __exit__(self, *_details: object) -> None:
        """Say that no more will come, and close."""
        self.fail()
        os.close(self.descriptor)

    @property
    def is_begun(self) -> bool:
        """Whether a reader can begin."""
        return self._have_bytes > 0 or self._state == _WHOLE

    def have(self, size_bytes: int) -> None:
        """Tell that so many bytes are there, counted from the beginning."""
        self._have_bytes = max(size_bytes, self._have_bytes)
        self._write(0)

    def have_end(self, offset: int) -> None:
        """Tell that all bytes from an offset on are there."""
        self._end_offset = offset
        self._write(0)

    def finish(self, mtime_ns: int) -> None:
        """Tell that all is there, and right.

        Args:
            mtime_ns: When the file was changed for the last time.
        """
        self._state = _WHOLE
        self._write(mtime_ns)

    def fail(self) -> None:
        """Tell that no more will come, or that what came is wrong; nothing if all is there."""
        if self._state == _COMING:
            self._state = _FAILED
            self._write(0)

    def _write(self, mtime_ns: int) -> None:
        record = _RECORD.pack(self._have_bytes, self._end_offset, mtime_ns, self._state)
        os.pwrite(self.descriptor, _CHECKED.pack(record, zlib.crc32(record)), 0)


class Arrival:
    """The readers' side. Threads may share it.

    Args:
        descriptor: See ArrivalWriter; no program that is started from here on gets it.
        cancel: Looked at while waiting.

    Raises:
        OSError: It is no such descriptor.
    """

    def __init__(self, descriptor: int, cancel: Cancel) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor
        self._cancel = cancel
        self._have_bytes, self._end_offset = 0, 1 << 64
        if os.fstat(descriptor).st_size != _CHECKED.size:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def wait(self, start: int, end: int) -> None:
        """Wait until a part of the file is there. Blocks for as long as it takes, or for an instant.

        Raises:
            TransientError: It will not come.
            StoppedError: The stop was requested.
        """
        while not (end <= self._have_bytes or start >= self._end_offset):
            state, _mtime_ns = self._look()
            if state == _WHOLE:
                return
            if not (end <= self._have_bytes or start >= self._end_offset):
                self._pause(state)

    def wait_for_all(self) -> int:
        """Wait until all of the file is there, and was found to be right.

        Returns:
            When it was changed for the last time, in nanoseconds since the epoch.

        Raises:
            TransientError: It will not come, or is another file than was announced.
            StoppedError: The stop was requested.
        """
        while True:
            state, mtime_ns = self._look()
            if state == _WHOLE:
                return mtime_ns
            self._pause(state)

    def _look(self) -> tuple[int, int]:
        while True:
            record, checksum = _CHECKED.unpack(os.pread(self._descriptor, _CHECKED.size, 0))
            if zlib.crc32(record) == checksum:
                self._have_bytes, self._end_offset, mtime_ns, state = _RECORD.unpack(record)
                return state, mtime_ns

    def _pause(self, state: int) -> None:
        self._cancel.raise_if_requested()
        if state == _FAILED:
            raise TransientError("the image did not come to its end on this host", hint="Another host may get it.")
        time.sleep(LOOK_SECONDS)


def arrival_of(environment: Mapping[str, str], cancel: Cancel) -> Arrival | None:
    """Return what the environment says of the image's arrival; None if the image is all there.

    Args:
        environment: Of this process.
        cancel: See Arrival.

    Raises:
        ConfigError: What it names is no open descriptor.
    """
    text = environment.get(FD_VARIABLE)
    if not text:
        return None
    try:
        return Arrival(int(text), cancel)
    except (OSError, ValueError, OverflowError) as exc:
        raise ConfigError(f"{FD_VARIABLE} is {text!r}, and not the number of an open descriptor") from exc
