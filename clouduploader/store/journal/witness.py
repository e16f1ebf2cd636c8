"""Ask the process that keeps a copy of the journal elsewhere whether this uploader may go on.

An upload host may be lost, or lose a job without knowing it yet. What its uploader wrote down must lie where another
host finds it before the uploader acts on it, and an uploader whose job is another host's by now must act no more. The
process that started it answers for both: over a stream socket, whose descriptor it names in FD_VARIABLE.
"""

import contextlib
import errno
import os
import signal
import stat
import threading
from collections.abc import Mapping

from clouduploader.errors import ConfigError

FD_VARIABLE = "CLOUDUPLOADER_JOURNAL_FD"
"""Names an open descriptor; where it is not set, the journal has no witness."""
ASKED = b"j"
CONFIRMED = b"k"


class Witness:
    """The other end of a socket, which confirms that the journal is safe, and the upload still ours.

    Threads may share it. It is closed with the process.

    Args:
        descriptor: Of a stream socket; no program that is started from here on gets it.

    Raises:
        OSError: It is none.
    """

    def __init__(self, descriptor: int) -> None:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
        os.set_inheritable(descriptor, False)
        os.set_blocking(descriptor, True)
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return once all that lies in the journal's directory is safe, and the upload still this process's.

        Else this process is killed at once, without a clean-up: what is in the cloud is another's to go on with.
        Blocks for as long as the answer takes, whatever signals arrive.
        """
        answer = b""
        with self._lock, contextlib.suppress(OSError):
            os.write(self._descriptor, ASKED)
            answer = os.read(self._descriptor, 1)
        if answer != CONFIRMED:
            os.kill(os.getpid(), signal.SIGKILL)


def witness_of(environment: Mapping[str, str]) -> Witness | None:
    """Return the witness that the environment names; None if it names none.

    Raises:
        ConfigError: What it names is no open socket.
    """
    text = environment.get(FD_VARIABLE)
    if not text:
        return None
    try:
        return Witness(int(text))
    except (OSError, ValueError, OverflowError) as exc:
        raise ConfigError(f"{FD_VARIABLE} is {text!r}, and not the number of an open socket") from exc
