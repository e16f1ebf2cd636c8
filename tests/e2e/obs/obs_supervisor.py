"""Keeps the OBS daemons and all that they start, and ends them when its stdin does.

Run as a script: `obs_supervisor.py SERVER_DIR PROGRAM=LISTEN_FD... [WORKER]`, with a descriptor for each
of the servers. It is a child subreaper, so an upload that went into its own session, or
whose parent was killed, is still found at the end. Because stdin is a pipe from the tests,
everything ends with them however they end.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def parents() -> dict[int, int]:
    """Every process that can be seen, and its parent."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            # The name in parentheses may hold anything, so fields are counted behind the last one.
            state, parent = stat.rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(entry.name)] = int(parent)
    return found


def descendants(root: int) -> list[int]:
    """The living processes below `root`, parents before children."""
    parent_of = parents()
    found = [root]
    for pid in found:
        found += [child for child, parent in parent_of.items() if parent == pid]
    return found[1:]


def reap_forever() -> None:
    """Take in what ended, ours by birth or by adoption."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(0.05)


def main() -> None:
    """Start the daemons, wait for the end of stdin, end everything."""
    server_dir = Path(sys.argv[1])
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for program, _, listen_fd in (argument.partition("=") for argument in sys.argv[2:]):
        if not listen_fd:
            subprocess.Popen([server_dir / program], stdin=subprocess.DEVNULL)
            continue
        # --restart FD is how a server hands its socket to its successor; so it can be given one that
        # listens on loopback alone, on a port that is free.
        subprocess.Popen(
            [server_dir / program, "--restart", listen_fd], pass_fds=[int(listen_fd)], stdin=subprocess.DEVNULL
        )
        os.close(int(listen_fd))
    threading.Thread(target=reap_forever, daemon=True).start()
    sys.stdin.buffer.read()
    while doomed := descendants(os.getpid()):
        for pid in doomed:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)


if __name__ == "__main__":
    main()
