"""Virtual disks of the formats that QEMU knows, read without a copy: qemu-nbd serves them on a private socket.

QEMU guesses nothing: the format is given, other files are ruled out (`external_refs`, and once more here), and its
programs run with limits (`rlimits`).
"""

import contextlib
import functools
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from clouduploader.errors import CannotCreateError, ImageError, LocalIOError, MissingProgramError
from clouduploader.image import external_refs, metadata_check, nbd
from clouduploader.image.raw_disk import MAX_EXTENTS, Extents
from clouduploader.model.disk import DiskFormat
from clouduploader.util.cancel import Cancel
from clouduploader.util.frozen import frozen

DRIVERS = {DiskFormat.QCOW2: "qcow2", DiskFormat.VMDK: "vmdk", DiskFormat.VHD_DYNAMIC: "vpc"}
"""The formats, and what QEMU calls them."""

RLIMITS = Path(__file__).with_name("rlimits.py")  # a program of its own
STDIN = "/proc/self/fd/0"  # the image is handed over open: no name of it can mean anything to QEMU
TOOL_SECONDS = 600  # ours: for qemu-img, which reads tables only: 128 MiB for 1 TiB of qcow2
POLL_SECONDS = 0.5  # how late a stop may be seen
PIECE_BYTES = 1 << 16  # a pipe's capacity, pipe(7)
LINE_BYTES = 4096  # ours: of `qemu-img map`; they have about 100
MAX_LINES = 1 << 20  # ours: of the same; some seconds. What lies behind counts as data
ANSWER_BYTES = 1 << 20  # ours: of `qemu-img info`; some KiB without snapshots
COMPLAINT_BYTES = 1 << 14  # ours: a few lines


class QemuDisk:
    """A virtual disk as a `raw_disk.RawDisk`.

    Attributes:
        size_bytes: Of the raw disk.
    """

    is_map_binding = True

    def __init__(self, client: nbd.NbdClient, read_extents: Callable[[], Extents]) -> None:
        self.size_bytes = client.size_bytes
        self.read_into = client.read_into
        self._read_extents = read_extents

    def is_hole(self, offset: int, size: int) -> bool:
        """See RawDisk; whatever the map calls a hole has no other contents."""
        return True

    @functools.cached_property
    def extents(self) -> Extents:
        """What was written; read at the first use, since it may take a while."""
        return self._read_extents()


@contextlib.contextmanager
def open_disk(
    path: Path, disk_format: DiskFormat, cancel: Cancel, *, filename: str | None = None
) -> Iterator[QemuDisk]:
    """Open a virtual disk; its server ends with the context.

    Args:
        path: The file, not packed.
        disk_format: One of DRIVERS.
        cancel: Honoured while waiting, here and by the disk.
        filename: Names it in errors; None for the path's own name.

    Raises:
        MissingProgramError: QEMU's tools are not installed.
        ImageError: It is damaged, cut off, encrypted, or needs other files.
        LocalIOError: It can't be read.
        CannotCreateError: There is no place for the socket.
        StoppedError: The stop was requested.
    """
    image_tool, server = _program("qemu-img"), _program("qemu-nbd")
    try:
        image = path.open("rb")
    except OSError as exc:
        raise LocalIOError(f"the image {path} can't be read: {exc.strerror}") from exc
    name = filename or path.name
    with image:
        external_refs.check(image.fileno(), disk_format, name)
        metadata_check.check(image.fileno(), disk_format, name, cancel)
        source = _QemuImage(image, name, _node(disk_format), cancel)
        with contextlib.closing(source.output([image_tool, "info", "--output=json"])) as pieces:
            _check_info(pieces, name)
        with source.served(server) as client:

            def read_extents() -> Extents:
                with contextlib.closing(source.output([image_tool, "map", "--output=json"])) as pieces:
                    return parse_map(pieces, client.size_bytes, disk_format, name)

            yield QemuDisk(client, read_extents)


def parse_map(pieces: Iterable[bytes], size_bytes: int, disk_format: DiskFormat, filename: str) -> Extents:
    """Parse the output of `qemu-img map --output=json`.

    A true hole is what is not "present": no write of the guest ever reached it. Clusters that are present and
    "zero" are zeros that were written, or data that were discarded; these can't be told apart. A VHD has no
    such clusters: all its zeros that are no data are holes, though QEMU calls them present. So it calls
    everything before version 6.1, where that word is missing; then nothing is a hole.

    Args:
        pieces: The output as it comes; no more is taken than needed.
        size_bytes: Of the disk.
        disk_format: See DRIVERS.
        filename: For errors.

    Raises:
        ImageError: It is anything else than a map of the whole disk.
    """
    found: list[tuple[int, int]] = []
    position = 0
    for number, line in enumerate(_lines(pieces, filename)):
        start, end, is_hole = _map_entry(line, disk_format, filename)
        if start != position or end > size_bytes:
            raise _nonsense(filename)
        if number == MAX_LINES:
            if found and found[-1][1] == start:
                start, _ = found.pop()
            return (*found, (start, size_bytes))
        position = end
        if not is_hole:
            if found and found[-1][1] == start:
                start, _ = found.pop()
            found.append((start, end))
        if len(found) == MAX_EXTENTS:
            return (*found[:-1], (found[-1][0], size_bytes))  # the rest counts as data
    if position != size_bytes:
        raise _nonsense(filename)
    return tuple(found)


def _lines(pieces: Iterable[bytes], filename: str) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole
        if len(rest) > LINE_BYTES:
            raise _nonsense(filename)
    if rest:
        yield rest


def _map_entry(line: bytes, disk_format: DiskFormat, filename: str) -> tuple[int, int, bool]:
    """Return start, end, and whether it is a hole; QEMU writes an entry a line."""
    try:
        entry = json.loads(line.strip(b"[], \r"))
        start, length, is_data, is_zero = entry["start"], entry["length"], entry["data"], entry["zero"]
        is_present = entry.get("present", True) is not False
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
        raise _nonsense(filename) from exc
    if type(start) is not int or type(length) is not int or length <= 0:
        raise _nonsense(filename)
    is_hole = is_data is False and is_zero is True and (not is_present or disk_format is DiskFormat.VHD_DYNAMIC)
    return start, start + length, is_hole


def _nonsense(filename: str) -> ImageError:
    return ImageError(f"qemu-img gives no sound map of {filename}")


def _check_info(pieces: Iterable[bytes], filename: str) -> None:
    """Refuse a disk with references or damage that QEMU sees and the checks before did not."""
    data = bytearray()
    for piece in pieces:
        data += piece
        if len(data) > ANSWER_BYTES:
            raise ImageError(f"qemu-img says too much about {filename}")
    try:
        info = json.loads(data)
        details = info.get("format-specific", {}).get("data", {})
        is_alone = not (
            info.keys() & {"backing-filename", "full-backing-filename", "data-file"}
            or details.get("data-file")
            or len(details.get("extents", [None])) != 1
        )
        is_sound = not (info.get("encrypted") or details.get("encrypt") or details.get("corrupt"))
    except (ValueError, TypeError, AttributeError, RecursionError) as exc:
        raise ImageError(f"qemu-img says nothing of use about {filename}") from exc
    if not is_alone:
        raise ImageError(f"{filename} needs other files")
    if not is_sound:
        raise ImageError(f"{filename} is encrypted, or marked as corrupt")


def _program(name: str) -> str:
    found = shutil.which(name)
    if not found:
        raise MissingProgramError(
            f"{name} is not installed", hint="Install QEMU's tools: qemu-utils of Debian, qemu-tools of openSUSE."
        )
    return found


def _node(disk_format: DiskFormat) -> str:
    """Return the disk in QEMU's words: standard input, in this format, and no backing file whatever it says."""
    node: dict[str, Any] = {
        "driver": DRIVERS[disk_format],
        "backing": None,
        "file": {"driver": "file", "filename": STDIN},
    }
    if disk_format is DiskFormat.VHD_DYNAMIC:
        node["force_size_calc"] = "current_size"  # else it goes by the geometry, which may cut off the end
    return f"json:{json.dumps(node)}"


@frozen()
class _QemuImage:
    """An image that QEMU's programs are to read."""

    image: BinaryIO
    filename: str
    node: str
    cancel: Cancel

    def output(self, command: Sequence[str]) -> Generator[bytes, None, None]:
        """Run a program, and yield its output as it comes; it is killed when the iterator ends.

        Raises:
            ImageError: It failed, or takes too long.
            StoppedError: The stop was requested.
        """
        with self._started(command, cpu_seconds=TOOL_SECONDS) as (process, complaints):
            out = process.stdout
            if out is None:
                raise AssertionError("it is a pipe")
            poll = select.poll()
            poll.register(out, select.POLLIN)
            deadline = time.monotonic() + TOOL_SECONDS
            while True:
                self.cancel.raise_if_requested()
                if time.monotonic() > deadline:
                    raise ImageError(f"{self.filename} can't be read by {Path(command[0]).name} in a reasonable time")
                if poll.poll(1000 * POLL_SECONDS):
                    piece = os.read(out.fileno(), PIECE_BYTES)
                    if not piece:
                        break
                    yield piece
            if process.wait():
                raise ImageError(f"{self.filename} can't be read: {self._complaint(complaints)}")

    @contextlib.contextmanager
    def served(self, server: str) -> Iterator[nbd.NbdClient]:
        """Have qemu-nbd serve the image to this process alone; it is killed when the context ends.

        Raises:
            ImageError: It can't read it.
            CannotCreateError: There is no place for the socket.
            StoppedError: The stop was requested.
        """
        with contextlib.ExitStack() as stack:
            listener, connection = _sockets()
            stack.enter_context(connection)
            with listener:  # closed on our side once the server has it, so that its end breaks the connection
                started = self._started([server, "--read-only"], cpu_seconds=0, listener=listener)
                _, complaints = stack.enter_context(started)
            try:
                client = nbd.NbdClient(connection, self.filename, self.cancel)
            except ImageError as exc:
                raise ImageError(f"{exc.message}; {self._complaint(complaints)}") from exc
            yield client

    @contextlib.contextmanager
    def _started(
        self, command: Sequence[str], *, cpu_seconds: int, listener: socket.socket | None = None
    ) -> Iterator[tuple[subprocess.Popen[bytes], BinaryIO]]:
        """Run a program on the image, in a session of its own: signals to this process's group do not reach it.

        Yields:
            The process, and a file with its standard error.
        """
        environment = {"PATH": os.defpath, "LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "1"}  # arenas count as memory
        handed_on = -1 if listener is None else listener.fileno()
        confinement = [sys.executable, "-I", "-S", str(RLIMITS), str(os.getpid()), str(cpu_seconds), str(handed_on)]
        with open(os.memfd_create("complaints"), "w+b") as complaints:  # noqa: PTH123 it has no path
            try:
                process = subprocess.Popen(
                    [*confinement, *command, self.node],
                    stdin=self.image,
                    stdout=subprocess.DEVNULL if listener else subprocess.PIPE,
                    stderr=complaints,
                    env=environment,
                    pass_fds=[handed_on] if listener else [],
                    start_new_session=True,
                )
            except OSError as exc:
                raise MissingProgramError(f"{command[0]} can't be started: {exc.strerror}") from exc
            with process:
                try:
                    yield process, complaints
                finally:
                    process.kill()

    def _complaint(self, complaints: BinaryIO) -> str:
        """Return the last line of a program's standard error, with the image's name in it."""
        complaints.seek(0)
        text = complaints.read(COMPLAINT_BYTES).decode("utf-8", "replace")
        for words in (self.node, STDIN):
            text = text.replace(words, self.filename)
        return (text.splitlines() or ["it says nothing of why"])[-1]


def _sockets() -> tuple[socket.socket, socket.socket]:
    """Return a listening socket without a name, and one that is connected to it."""
    listener = socket.socket(socket.AF_UNIX)
    connection = socket.socket(socket.AF_UNIX)
    try:
        with tempfile.TemporaryDirectory(prefix="clouduploader-") as directory:  # private
            parent = os.open(directory, os.O_PATH | os.O_DIRECTORY)
            try:
                name = f"/proc/self/fd/{parent}/nbd"  # $TMPDIR may be longer than the 108 bytes of unix(7)
                listener.bind(name)
                listener.listen(1)
                connection.connect(name)
            finally:
                os.close(parent)
    except OSError as exc:
        listener.close()
        connection.close()
        raise CannotCreateError(f"no socket can be made: {exc.strerror}", hint="Set TMPDIR.") from exc
    return listener, connection
