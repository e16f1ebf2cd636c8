"""The record of API calls: one JSON object a line."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class CallRecord:
    """A file that grows by a line with each call; safe with threads.

    Args:
        path: See layout.Layout.calls.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write down one call."""
        with self._lock, self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def calls(self) -> list[dict[str, Any]]:
        """Return all calls so far."""
        with self._lock:
            return [json.loads(line) for line in self._path.read_text().splitlines()]
