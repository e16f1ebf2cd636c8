"""Keystone and Glance as processes: their files, and how they are started."""

import base64
import os
from collections.abc import Mapping
from pathlib import Path

from clouduploader.sandbox.foreign_server import ForeignServer

REQUIREMENTS = ("glance>=33", "gunicorn>=23", "keystone>=30")
SERVE = Path(__file__).with_name("serve.py")
KEYSTONE_CONF = """\
[DEFAULT]
log_file = {directory}/keystone.log
[oslo_middleware]
enable_proxy_headers_parsing = true
[database]
connection = sqlite:///{directory}/keystone.sqlite
[token]
provider = fernet
[fernet_tokens]
key_repository = {directory}/tokens
[fernet_receipts]
key_repository = {directory}/tokens
[credential]
key_repository = {directory}/tokens
[identity]
password_hash_rounds = 4
"""
GLANCE_CONF = """\
[DEFAULT]
log_file = {directory}/glance.log
public_endpoint = {url}
node_staging_uri = file://{directory}/staging
enabled_backends = main:file
enabled_import_methods = [glance-direct]
[database]
connection = sqlite:///{directory}/glance.sqlite
[glance_store]
default_backend = main
[main]
filesystem_store_datadir = {directory}/store
[os_glance_staging_store]
filesystem_store_datadir = {directory}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {directory}/tasks
[keystone_authtoken]
auth_url = {keystone}
www_authenticate_uri = {keystone}
auth_type = password
project_domain_id = default
user_domain_id = default
project_name = service
username = glance
password = {password}
service_type = image
[paste_deploy]
flavor = keystone
"""


def write_keystone(directory: Path) -> Path:
    """Write Keystone's settings and new keys.

    Args:
        directory: Gets all files of it.

    Returns:
        The file with the settings.
    """
    keys = directory / "tokens"
    keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("0", "1"):  # as `keystone-manage fernet_setup` makes them, in four seconds
        (keys / name).write_bytes(base64.urlsafe_b64encode(os.urandom(32)))
    path = directory / "keystone.conf"
    path.write_text(KEYSTONE_CONF.format(directory=directory))
    return path


def write_glance(directory: Path, environment: Path, *, url: str, keystone: str, password: str) -> Path:
    """Write Glance's settings.

    Args:
        directory: Gets all files of it.
        environment: Where it is installed.
        url: Of the server, as clients see it.
        keystone: The URL of Keystone itself.
        password: Of the user `glance`.

    Returns:
        The file with the settings.
    """
    for name in ("store", "staging", "tasks"):
        (directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    paste = environment / "etc/glance/glance-api-paste.ini"
    (directory / paste.name).write_bytes(paste.read_bytes())
    path = directory / "glance-api.conf"
    path.touch(mode=0o600)
    path.write_text(GLANCE_CONF.format(directory=directory, url=url, keystone=keystone, password=password))
    return path


def start_keystone(environment: Path, directory: Path, port: int) -> ForeignServer:
    """Start Keystone with the files of a directory; it serves later, see ForeignServer."""
    return _start(environment, directory, "keystone.wsgi.api", port, {"OS_KEYSTONE_CONFIG_FILES": "keystone.conf"})


def start_glance(environment: Path, directory: Path, port: int) -> ForeignServer:
    """Start Glance with the files of a directory; it serves later, see ForeignServer."""
    return _start(environment, directory, "glance.wsgi.api", port, {"OS_GLANCE_CONFIG_FILES": "glance-api.conf"})


def _start(environment: Path, directory: Path, module: str, port: int, variables: Mapping[str, str]) -> ForeignServer:
    kinds = [name.replace("FILES", "DIR") for name in variables]
    return ForeignServer(
        [environment / "bin/python", SERVE, module, str(port)],
        port=port,
        environment={
            "PATH": os.defpath,
            "HOME": str(directory),
            **variables,
            **dict.fromkeys(kinds, str(directory)),
        },
        log=directory / "server.log",
        directory=directory,
    )
