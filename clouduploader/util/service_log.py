"""The log of server and worker: one line a request and a change of a job, in logfmt.

    time=2026-11-25T11:07:41.123Z event=scheduled job=7 bytes=734003200 seconds=2.698
    time=2026-11-25T11:07:41.124Z event=request job=7 client=::1 method=PUT path=/cloudupload/7 status=200 seconds=2.701

A value is bare if it holds nothing but letters, digits and a few signs, else a JSON string in ASCII: whatever a
client sends, it stays one value of one line. Neither queries nor bodies are logged, nor headers.
"""

import contextlib
import datetime
import json
import logging
import re
import threading
import traceback
from typing import TextIO

from clouduploader.util import masking

_BARE = re.compile(r"[A-Za-z0-9_./:+@-]+")


class ServiceLog:
    """Writes what the service does, a line each. Safe to use from several threads.

    Args:
        stream: Standard error, which systemd leads to its journal. If it can't be written, the service goes on.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.renew()

    def renew(self) -> None:
        """Make it usable in a process that was forked while a thread may have been writing a line."""
        self._lock = threading.Lock()

    def tell(self, event: str, *, job: str | None = None, **facts: str | float | None) -> None:
        """Write one line.

        Args:
            event: One word.
            job: The job's id; None if it is about none.
            facts: What else there is to say; what is None is left out, and seconds have three decimals.
        """
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        pairs = {"time": now, "event": event, "job": job, **facts}
        line = " ".join(f"{name}={_shown(value)}" for name, value in pairs.items() if value is not None)
        with self._lock, contextlib.suppress(OSError):
            self._stream.write(line + "\n")
            self._stream.flush()


def _shown(value: str | float) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text)


class Handler(logging.Handler):
    """Writes what a library logs to the log of the service.

    Args:
        log: Where to.
    """

    def __init__(self, log: ServiceLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, with the traceback as one of its values; secrets are masked."""
        trace = masking.masked("".join(traceback.format_exception(*record.exc_info))) if record.exc_info else None
        self._log.tell(record.levelname.lower(), text=masking.masked(record.getMessage()), traceback=trace)
