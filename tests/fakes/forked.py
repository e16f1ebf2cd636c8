"""Runs code in a fork of the test's process: it has all modules that a program of its own would have to import."""

import os
import subprocess
import sys
import tempfile
import traceback
import warnings


def run(work, *, cwd=None):
    """Run a function that may kill its process, or leave it without a word.

    Args:
        work: Returns the exit code.
        cwd: Its working directory; None for ours.

    Returns:
        A CompletedProcess, with what was written to the standard streams; a signal as a negative number.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            pid = os.fork()  # Python 3.12 warns where there are threads; none of the tests' holds a lock meanwhile
        if pid == 0:
            _become(work, cwd, out.fileno(), err.fileno())
        _, status = os.waitpid(pid, 0)
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(work, os.waitstatus_to_exitcode(status), out.read(), err.read())


def _become(work, cwd, out, err):
    code = 1
    try:
        for number, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), out, err)):
            os.dup2(descriptor, number)
        sys.stdin, sys.stdout, sys.stderr = (
            open(number, mode, closefd=False)  # noqa: SIM115 as long as the process lives
            for number, mode in enumerate("rww")
        )
        sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
        tempfile.tempdir = None  # as TMPDIR says now
        if cwd is not None:
            os.chdir(cwd)
        code = work()
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001 none gets into the test that goes on beside it
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
