"""A cloud that is ready to be copied: databases with projects, users, endpoints and application credentials.

It takes half a minute to make: so it is made once, with the environment of the servers.
"""

import json
import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clouduploader.platforms.openstack import accounts
from clouduploader.sandbox import installation
from clouduploader.sandbox.openstack import servers
from clouduploader.sandbox.openstack.layout import AUTH_URL, GLANCE_PORTS, KEYSTONE
from clouduploader.sandbox.openstack.rest import User

NAME = "cloud"  # of its directory in the environment
FACTS = "facts.json"
VERSION = "2"
REGION = "RegionOne"  # whose endpoints Keystone's own are


def complete(environment: Path) -> None:
    """Make the template in an environment. Blocks for half a minute.

    Raises:
        ClouduploaderError: It can't be made.
    """
    directory = environment / NAME
    directory.mkdir(mode=0o700)
    passwords = {name: secrets.token_urlsafe() for name in ("admin", "glance", "user")}
    settings = servers.write_keystone(directory)
    variables = {"PATH": os.defpath, "HOME": str(directory), "PYTHONWARNINGS": "ignore"}

    def run(program: str, *arguments: str | Path, **more: str) -> None:
        installation.run("openstack", [environment / "bin" / program, *arguments], variables | more)

    run("keystone-manage", "--config-file", settings, "db_sync")
    # Glance takes the internal one, from the catalog too
    urls = ("--bootstrap-public-url", AUTH_URL, "--bootstrap-internal-url", f"{KEYSTONE}/v3")
    bootstrap = ("bootstrap", "--bootstrap-region-id", REGION, *urls)
    run("keystone-manage", "--config-file", settings, *bootstrap, OS_BOOTSTRAP_PASSWORD=passwords["admin"])
    glance = servers.write_glance(directory, environment, url="", keystone="", password="")
    run("glance-manage", "--config-dir", directory, "--config-file", glance, "db_sync")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = servers.start_keystone(environment, directory, port)
    try:
        server.await_ready()
        facts = _populate(f"http://127.0.0.1:{port}/v3", passwords)
    finally:
        server.stop()
    path = directory / FACTS
    path.touch(mode=0o600)
    path.write_text(json.dumps(facts))


def _populate(url: str, passwords: Mapping[str, str]) -> dict[str, Any]:
    """Make projects, users, endpoints and credentials in an empty Keystone; return what must be known of them."""
    admin = User(url, name="admin", password=passwords["admin"], project="admin")
    roles = {role["name"]: role["id"] for role in admin.call("GET", f"{url}/roles")["roles"]}
    projects = {
        name: admin.make("projects", {"project": {"name": name, "domain_id": "default"}})["id"]
        for name in ("service", "sandbox", "other")
    }
    for name, project, granted in (("glance", "service", ("admin", "service")), ("user", "sandbox", ("member",))):
        person = {"name": name, "password": passwords[name], "domain_id": "default"}
        user_id = admin.make("users", {"user": person})["id"]
        for role in granted:
            admin.call("PUT", f"{url}/projects/{projects[project]}/users/{user_id}/roles/{roles[role]}")
    service_id = admin.make("services", {"service": {"name": "glance", "type": "image"}})["id"]
    for region, port in GLANCE_PORTS.items():
        if region != REGION:
            admin.make("regions", {"region": {"id": region}})
        endpoint = {"service_id": service_id, "interface": "public", "url": f"https://127.0.0.1:{port}"}
        admin.make("endpoints", {"endpoint": {**endpoint, "region_id": region}})
    user = User(url, name="user", password=passwords["user"], project="sandbox")
    credentials = {}
    for name, extras in {"least": (), "full": tuple(accounts.EXTRA_RULES)}.items():
        wanted = {"name": name, "roles": [{"name": accounts.ROLE}], "access_rules": accounts.rules(extras)}
        made = user.make(f"users/{user.id}/application_credentials", {"application_credential": wanted})
        credentials[name] = {"id": made["id"], "secret": made["secret"]}
    return {
        "passwords": dict(passwords),
        "project_id": projects["sandbox"],
        "other_project_id": projects["other"],
        "credential": credentials["least"],
        "full_credential": credentials["full"],
        "user": {"name": "user", "password": passwords["user"], "project": "sandbox"},
    }
