"""The environment variables of the processes in a sandbox."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from clouduploader.sandbox.cloud import SandboxCloud
from clouduploader.sandbox.layout import VARIABLE, Layout


def of_command(layout: Layout, cloud: SandboxCloud, base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a command in the sandbox.

    Args:
        layout: Of the sandbox.
        cloud: Of the sandbox.
        base: The environment to start from; the cloud's variables and the ssh agent are taken out.
    """
    kept = {name: value for name, value in _without(cloud, base).items() if name != "SSH_AUTH_SOCK"}
    # The Python that runs the sandbox has clouduploader beside it, perhaps not on PATH.
    path = [str(layout.bin), str(Path(sys.executable).parent), base.get("PATH", os.defpath)]
    return kept | {
        "PATH": os.pathsep.join(path),
        VARIABLE: str(layout.root),
        "CLOUDUPLOADER_HOME": str(layout.home),
        "CLOUDUPLOADER_SPOOL": str(layout.spool),
        **cloud.environment(layout),
    }


def of_server(cloud: SandboxCloud, base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the sandbox's server; see `of_command`."""
    return _without(cloud, base) | dict(cloud.server_environment)


def _without(cloud: SandboxCloud, base: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in base.items() if not name.startswith(cloud.variable_prefixes)}
