"""Runs ec2uploadimg with arguments that never stand on a command line, and tells what it asks AWS for.

    INTERPRETER launch.py SCRIPT  < JSON: {"arguments": [...], "trace_fd": N, "parent": PID}

This file runs in the Python of ec2uploadimg, which may be another than ours and may not know our
package: it imports the standard library and botocore, which is there as ec2uploadimg needs it.
/proc/PID/cmdline, which every local user may read, shows no argument; process id, signals and exit
status are the script's own.

A line of JSON goes to `trace_fd` after each call of the API: `operation`, `parameters`, `answer`
(of calls that make something, without key material), `code` and `message` (of a refusal), `status`,
`milliseconds`, `request_id`, `date`.
"""

import contextlib
import ctypes
import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1  # linux/prctl.h
MAKERS = ("Create", "Run", "Register")


def die_with(parent: int) -> None:
    """Ask the kernel for a SIGTERM when the parent dies, so that nothing is left running unwatched."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("clouduploader is gone")


def trace(session: Any, fd: int) -> None:  # noqa: ANN401 a session of whichever botocore is there
    """Write a line after each call that a client of this session makes."""

    def before_build(params: Any, context: dict[str, Any], **_rest: object) -> None:  # noqa: ANN401
        context["clouduploader"] = {"parameters": params, "began": time.monotonic()}

    def after(http_response: Any, parsed: Any, model: Any, context: dict[str, Any], **_rest: object) -> None:  # noqa: ANN401
        note = context.get("clouduploader", {})
        metadata = parsed.get("ResponseMetadata", {})
        error = parsed.get("Error", {})
        line = {
            "operation": model.name,
            "parameters": note.get("parameters"),
            "status": http_response.status_code,
            "code": error.get("Code"),
            "message": error.get("Message"),
            "milliseconds": round((time.monotonic() - note.get("began", time.monotonic())) * 1000),
            "request_id": metadata.get("RequestId"),
            "date": metadata.get("HTTPHeaders", {}).get("date", ""),
        }
        if model.name.startswith(MAKERS):
            line["answer"] = {k: v for k, v in parsed.items() if k not in ("KeyMaterial", "ResponseMetadata")}
        with contextlib.suppress(BrokenPipeError):  # killed, we leave it to clean up by itself
            os.write(fd, json.dumps(line, default=str).encode() + b"\n")

    session.register("before-parameter-build", before_build)
    session.register("after-call", after)


def main() -> None:
    """Take the order from stdin, and become the script."""
    import botocore

    script = sys.argv[1]
    order = json.load(sys.stdin)
    die_with(order["parent"])
    with Path(os.devnull).open() as null:
        os.dup2(null.fileno(), 0)
    botocore.register_initializer(lambda session: trace(session, order["trace_fd"]))
    sys.argv = [script, *order["arguments"]]
    sys.path[0] = str(Path(script).resolve().parent)
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
