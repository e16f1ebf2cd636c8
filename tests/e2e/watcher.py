"""Looks at what any local user can see of the processes in a sandbox, all the time."""

import threading
from pathlib import Path

SWEEP_SECONDS = 0.02


class Watcher(threading.Thread):
    """Reads what other local users could read, all the time, and the key files that come and go.

    Attributes:
        seen: Command lines and environments of all processes that there were in the sandbox.
        keys: The content and the mode of each private key.
    """

    def __init__(self, sandbox, temporary):
        super().__init__()
        self.seen = set()
        self.keys = set()
        self._network = self._network_of(Path("/proc") / sandbox.layout.namespaces.read_text().strip())
        self._temporary = temporary
        self._end = threading.Event()

    def run(self):
        while not self._end.wait(SWEEP_SECONDS):
            for process in Path("/proc").glob("[0-9]*"):
                if self._network_of(process) != self._network:  # a test of somebody else's
                    continue
                for name in ("cmdline", "environ"):
                    self._read(process / name, lambda path: self.seen.add(path.read_bytes()))
            for key in self._key_paths():
                self._read(key, lambda path: self.keys.add((path.read_text(), path.stat().st_mode & 0o777)))

    def _key_paths(self):
        try:
            return list(self._temporary.glob("*/*.key"))
        except OSError:  # a private directory has just gone while it was looked into
            return []

    @staticmethod
    def _network_of(process):
        try:
            return (process / "ns" / "net").stat().st_ino
        except OSError:  # it has just ended
            return None

    @staticmethod
    def _read(path, read):
        try:
            read(path)
        except OSError:  # it has just ended
            return

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self.join()
