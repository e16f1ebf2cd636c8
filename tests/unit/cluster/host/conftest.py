import os
import sys

import pytest


@pytest.fixture
def program(tmp_path):
    """Return a factory of uploaders that do what a text of Python says.

    They have `os`, `signal`, `sys` and `time`, the `operands`, and a function `ask` for their witness.
    """

    def program(text):
        path = tmp_path / "uploader"
        lines = [
            f"#!{sys.executable} -IS",
            "import os, signal, sys, time",
            "operands = sys.argv[1:]",
            "def ask(): os.write(3, b'j'); return os.read(3, 1)",
            text,
        ]
        path.write_text("\n".join(lines))
        path.chmod(0o755)
        return path

    return program


@pytest.fixture
def is_running():
    """Return a function that tells whether a process lives."""

    def is_running(pid):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True

    return is_running
