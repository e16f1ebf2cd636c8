#!/usr/bin/env python3
"""Our server in the place of OBS's: takes the arguments of `bs_clouduploadserver --restart FD`.

To be linked under that name into a directory of OBS's programs. Its Python is that of the tests.
"""

import re
import socket
import sys
import time
from pathlib import Path

from clouduploader.cli.main import main

BSDIR = Path(sys.argv[0]).parent.parent


def take_port(listen_fd: int) -> int:
    """The port of a listening socket, once nobody has it any more: ours is made by ourselves."""
    with socket.socket(fileno=listen_fd) as listener:
        address = listener.getsockname()
    while True:
        try:
            socket.create_server(address).close()
        except OSError:
            time.sleep(0.02)
        else:
            return int(address[1])


if __name__ == "__main__":
    # The tests have $rundir elsewhere, and we look for the worker's lock where it is by default.
    rundir = re.search(r"rundir = '(.*)'", (BSDIR / "server/BSConfig.pm").read_text())
    if rundir and not (BSDIR / "run").is_symlink():
        (BSDIR / "run").symlink_to(rundir[1])
    port = take_port(int(sys.argv[2]))
    options = ["--no-worker", "--listen", f"127.0.0.1:{port}"]
    sys.exit(main(["--spool", str(BSDIR / "cloudupload"), "serve", *options]))
