"""Upload hosts that can be lost, with a server that keeps their journals: the two share nothing else."""

import contextlib
import shutil
import socket
import threading

from clouduploader.client.cluster import Claim
from clouduploader.cluster.host.mirror import Mirror
from clouduploader.plugin.transfer.confirmed import MAGIC, ConfirmedChunks
from clouduploader.store import journal
from clouduploader.store.journal.witness import CONFIRMED, FD_VARIABLE

LOOK_SECONDS = 0.05


class JournalServer:
    """Stands for `ClusterServer`: what it is told goes into a JournalReplica.

    Args:
        state_dir: Where it keeps the journal, of one upload.
    """

    def __init__(self, state_dir):
        self.state_dir = state_dir
        self.replica = None

    @property
    def key(self):
        """The journal's key; None before the first host has sent something."""
        return next((path.name for path in self.state_dir.iterdir()), None) if self.state_dir.exists() else None

    def sizes(self):
        """The files that it has."""
        return self.replica.files() if self.replica else {}

    def confirmed(self, chunk_bytes, count):
        """Which of so many chunks it knows to be confirmed, of anything."""
        found = set()
        for path in self.state_dir.glob(f"*/{journal.PLATFORM_NAME}/*.confirmed"):
            copy = self.state_dir.parent / path.name
            shutil.copyfile(path, copy)  # to open it cuts off what is torn
            with ConfirmedChunks(copy, chunk_bytes) as opened:
                found |= {index for index in range(count) if opened.confirmed(index) is not None}
        return found

    def has_platform_files(self):
        """Whether it has something that the platform wrote down."""
        return any(size > len(MAGIC) for name, size in self.sizes().items() if name != journal.FILE_NAME)

    def append_journal(self, _claim, name, *, offset, data, is_whole):
        return self.replica.replace(name, data) if is_whole else self.replica.append(name, offset, data)

    def read_journal(self, _claim, name):
        return self.replica.read(name, 0, 1 << 26)

    def remove_journal(self, _claim, name):
        self.replica.remove(name)


class UploadHost:
    """A host, with one uploader; it brings the journal to the server before it confirms anything.

    Args:
        server: What has the journal.
        state_dir: Of this host alone; made.
    """

    def __init__(self, server, state_dir):
        self.server, self.state_dir = server, state_dir
        self._is_lost = threading.Event()
        self._thread = None

    def start(self, popen, environment):
        """Start the uploader.

        Args:
            popen: Called with the environment, and the descriptors that the uploader must get; gives the process.
            environment: Of the uploader.
        """
        self.state_dir.mkdir()
        mirror = None
        if self.server.key:
            self.server.replica = journal.JournalReplica(self.server.state_dir, self.server.key)
            mirror = self._mirror(self.server.key)
            mirror.fetch(self.server.sizes())
        ours, theirs = socket.socketpair()
        with theirs:
            described = {**environment, "CLOUDUPLOADER_STATE": str(self.state_dir), FD_VARIABLE: str(theirs.fileno())}
            process = popen(env=described, pass_fds=[theirs.fileno()])
        self._thread = threading.Thread(target=self._serve, args=(ours, mirror))
        self._thread.start()
        return process

    def lose(self):
        """Let nothing more come to the server from here."""
        self._is_lost.set()
        self._thread.join()

    def join(self):
        """Wait until the uploader has ended, and the server has all that it wrote."""
        self._thread.join()

    def _mirror(self, key):
        return Mirror(
            self.server, Claim("1", 1, "x"), journal_dir=self.state_dir / key, log=self.state_dir.parent / "no-log"
        )

    def _serve(self, ours, mirror):
        ours.settimeout(LOOK_SECONDS)
        with ours, contextlib.ExitStack() as stack:
            asked = None
            while asked != b"" and not self._is_lost.is_set():
                try:
                    asked = ours.recv(1)
                except TimeoutError:
                    asked = None
                except ConnectionResetError:  # it was killed before it read an answer
                    asked = b""
                mirror = mirror or self._begun()
                if mirror:
                    mirror.send_journal()
                if asked:
                    with contextlib.suppress(BrokenPipeError):  # the uploader was killed
                        ours.sendall(CONFIRMED)
            if mirror:
                stack.enter_context(mirror)
            if self.server.replica:
                self.server.replica.close()

    def _begun(self):
        for path in self.state_dir.iterdir():
            self.server.replica = journal.JournalReplica(self.server.state_dir, path.name)
            return self._mirror(path.name)
        return None
