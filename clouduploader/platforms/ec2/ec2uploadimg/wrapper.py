"""Runs ec2uploadimg with arguments that never stand on a command line, and tells what it asks AWS for.

    INTERPRETER wrapper.py SCRIPT  < JSON: {"arguments": [...], "trace_fd": N, "parent": PID, "death_signal": N,
                                            "tags": {NAME: VALUE}}

This file runs in the Python of ec2uploadimg, which may be another than ours and may not know our
package: it imports the standard library and botocore, which is there as ec2uploadimg needs it.
/proc/PID/cmdline, which every local user may read, shows no argument; process id, signals and exit
status are the script's own.

What it makes bears the tags from the first moment on. A role that may make things but not tag them is refused by
that; such a call is made once more without the tags, so that it is as good as before.

A line of JSON goes to `trace_fd` before each call that makes something, with `asked`, the operation; and after
each call: `operation`, `parameters`, `answer` (of calls that make something, without key material), `code` and
`message` (of a refusal), `status`, `milliseconds`, `request_id`, `date`.
"""

import contextlib
import ctypes
import json
import os
import runpy
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1  # linux/prctl.h
MAKERS = ("Create", "Run", "Register")
TAGGED = {
    "CreateKeyPair": ("key-pair",),
    "CreateVpc": ("vpc",),
    "CreateInternetGateway": ("internet-gateway",),
    "CreateRouteTable": ("route-table",),
    "CreateSubnet": ("subnet",),
    "CreateSecurityGroup": ("security-group",),
    "RunInstances": ("instance", "volume"),
    "CreateVolume": ("volume",),
    "CreateSnapshot": ("snapshot",),
    "RegisterImage": ("image",),
}
"""The calls that make things, and the ResourceTypes of these (EC2 API, TagSpecification)."""
TAGS_REFUSED = ("UnauthorizedOperation", "TagPolicyViolation")  # by IAM; by the tag policy of an organization
MAX_TAGS = 50  # of one resource; EC2 User Guide, "Tag restrictions"


def die_with(parent: int, number: int) -> None:
    """Ask the kernel for a signal when the parent dies, so that nothing is left running unwatched."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        sys.exit("clouduploader is gone")


def with_tags(parameters: dict[str, Any], types: Iterable[str], tags: dict[str, str]) -> dict[str, Any]:
    """Return the parameters of a call, with these tags beside those that are there for each type of resource."""
    given = {item["ResourceType"]: list(item.get("Tags", [])) for item in parameters.get("TagSpecifications", [])}
    for kind in types:
        others = [tag for tag in given.get(kind, []) if tag["Key"] not in tags]
        given[kind] = [*({"Key": key, "Value": value} for key, value in tags.items()), *others][:MAX_TAGS]
    specifications = [{"ResourceType": kind, "Tags": items} for kind, items in given.items()]
    return {**parameters, "TagSpecifications": specifications}


def mark(session: Any, fd: int, tags: dict[str, str]) -> None:
    """Let each client of this session say what it is about to make, and tag it."""
    import botocore.exceptions

    class Marking:
        """A base class of the clients, in front of botocore's own."""

        meta: Any

        def _make_api_call(self, operation_name: str, api_params: dict[str, Any]) -> object:
            make: Callable[..., object] = super()._make_api_call  # type: ignore[misc] # of botocore's base class
            if operation_name not in TAGGED:
                return make(operation_name, api_params)
            shape = self.meta.service_model.operation_model(operation_name).input_shape
            write(fd, {"asked": operation_name})
            if "TagSpecifications" not in shape.members:  # an old botocore
                return make(operation_name, api_params)
            try:
                return make(operation_name, with_tags(api_params, TAGGED[operation_name], tags))
            except botocore.exceptions.ClientError as exc:
                if exc.response["Error"]["Code"] not in TAGS_REFUSED:
                    raise
            write(fd, {"asked": operation_name})
            return make(operation_name, api_params)

    def add_base(base_classes: list[type], **_rest: object) -> None:
        base_classes.insert(0, Marking)

    session.register("creating-client-class.ec2", add_base)


def write(fd: int, line: dict[str, Any]) -> None:
    """Write a line of the trace."""
    with contextlib.suppress(BrokenPipeError):  # killed, we leave it to clean up by itself
        os.write(fd, json.dumps(line, default=str).encode() + b"\n")


def trace(session: Any, fd: int) -> None:
    """Write a line after each call that a client of this session makes."""

    def before_build(params: Any, context: dict[str, Any], **_rest: object) -> None:
        context["clouduploader"] = {"parameters": params, "began": time.monotonic()}

    def after(http_response: Any, parsed: Any, model: Any, context: dict[str, Any], **_rest: object) -> None:
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
        write(fd, line)

    session.register("before-parameter-build", before_build)
    session.register("after-call", after)


def main() -> None:
    """Take the order from stdin, and become the script."""
    import botocore

    script = sys.argv[1]
    order = json.load(sys.stdin)
    die_with(order["parent"], order["death_signal"])
    with Path(os.devnull).open() as null:
        os.dup2(null.fileno(), 0)

    def initialize(session: Any) -> None:
        trace(session, order["trace_fd"])
        mark(session, order["trace_fd"], order["tags"])

    botocore.register_initializer(initialize)
    sys.argv = [script, *order["arguments"]]
    sys.path[0] = str(Path(script).resolve().parent)
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
