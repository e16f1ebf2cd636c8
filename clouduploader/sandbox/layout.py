"""Paths in the directory of a sandbox."""

from pathlib import Path

from clouduploader.util.frozen import frozen

VARIABLE = "CLOUDUPLOADER_SANDBOX"  # of the environment; its value is the root


@frozen()
class Layout:
    """The paths in a sandbox's directory.

    Attributes:
        root: The directory; private, and nothing else is in it.
    """

    root: Path

    @property
    def description(self) -> Path:
        """The file sandbox.json, which names all others; see the package."""
        return self.root / "sandbox.json"

    @property
    def home(self) -> Path:
        """The home of clouduploader."""
        return self.root / "home"

    @property
    def spool(self) -> Path:
        """The spool, as OBS has it."""
        return self.root / "spool"

    @property
    def bin(self) -> Path:
        """Holds programs that a command in the sandbox finds first."""
        return self.root / "bin"

    @property
    def sample(self) -> Path:
        """The image of job 1, packed."""
        return self.root / "sample.raw.xz"

    @property
    def ca(self) -> Path:
        """The certificate of the CA that the certificates of https endpoints are from; public."""
        return self.root / "ca.pem"

    @property
    def calls(self) -> Path:
        """One JSON object for each API call."""
        return self.root / "calls.jsonl"

    @property
    def server_log(self) -> Path:
        """What the server writes to stdout and stderr."""
        return self.root / "server.log"

    @property
    def socket(self) -> Path:
        """The Unix socket of the control channel, which can be reached from outside too."""
        return self.root / "socket"

    @property
    def namespaces(self) -> Path:
        """Holds the pid, as seen from outside, of a process that nsenter can be pointed at."""
        return self.root / "namespaces.pid"
