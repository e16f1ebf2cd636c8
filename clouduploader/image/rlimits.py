"""Execute a program that reads a hostile file, with resource limits, and killed when the caller's thread ends.

    PYTHON -I -S rlimits.py PARENT_PID CPU_SECONDS LISTENER PROGRAM [ARGUMENT...]

A program of its own, as code between fork and exec is not safe in a process with threads. LISTENER is the
number of a listening socket that is handed on as systemd does it, sd_listen_fds(3); -1 for none. CPU_SECONDS may be
0 for no limit.
"""

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h; when the thread dies that started it, prctl(2)
MEMORY_BYTES = 1 << 31  # ours: QEMU's caches, tables and threads of a large qcow2 take less than half
FILE_BYTES = 1 << 20  # ours: it writes nothing but messages
LISTEN_FD = 3  # the first behind the standard ones; fixed by the protocol


def main(arguments: list[str]) -> None:
    """Execute the program; see the module."""
    parent, cpu_seconds, listener, *command = arguments
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit("clouduploader is gone")
    limits = {resource.RLIMIT_AS: MEMORY_BYTES, resource.RLIMIT_FSIZE: FILE_BYTES, resource.RLIMIT_CORE: 0}
    if int(cpu_seconds):
        limits[resource.RLIMIT_CPU] = int(cpu_seconds)
    for kind, limit in limits.items():
        _, hard = resource.getrlimit(kind)
        least = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (least, least))
    if int(listener) >= 0:
        os.dup2(int(listener), LISTEN_FD)
        if int(listener) != LISTEN_FD:
            os.close(int(listener))
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
    os.execv(command[0], command)  # noqa: S606 no shell is the point


if __name__ == "__main__":
    main(sys.argv[1:])
