"""OpenStack as the command line, `host` and `init` know it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from clouduploader.sandbox import installation
from clouduploader.sandbox.cloud import Emulator, SandboxCloud, SandboxServices
from clouduploader.sandbox.layout import Layout
from clouduploader.sandbox.openstack.layout import CLOUD_NAME, GLANCE_PORTS, OpenStackLayout


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenStackCloud(SandboxCloud):
    """A real Keystone and two Glances."""

    target = "openstack"
    contents = "the real Keystone, and the real Glance of two regions, with a project and an application credential"
    advice = (
        "Try the following: upload an image; have the service upload one, and job 1.\n"
        "`openstack` (python-openstackclient) shows you the project as its user."
    )
    programs = MappingProxyType({"gpg": "gnupg", "openssl": "openssl"})
    modules = ("aiohttp", "openstack", "werkzeug")
    variable_prefixes = ("OS_",)
    server_environment: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def install(self, say: Callable[[str], None]) -> None:
        """Install the servers, and make the cloud that sandboxes copy."""
        environment(say)

    def headline(self, described: Mapping[str, Any]) -> str:
        """Name the endpoint."""
        return f"{described['auth_url']}; Keystone and Glance are real, and nothing leaves this machine"

    def facts(self, described: Mapping[str, Any]) -> Mapping[str, str]:
        """Return what an upload by hand is told."""
        return {
            "cloud": f"{CLOUD_NAME}, in clouds.yaml",
            "regions": ", ".join(described["regions"]),
            "project": described["project_id"],
        }

    def examples(self, layout: Layout) -> Sequence[str]:
        """Return an upload by hand, one by the service, and what OBS does."""
        job = layout.spool / "1"
        return (
            f"clouduploader upload --target openstack --region RegionOne --name my-image {layout.sample}",
            "clouduploader list",
            "clouduploader serve 2>serve.log &",
            f"clouduploader submit --wait --target openstack --region RegionTwo --name my-other-image {layout.sample}",
            f"clouduploader sandbox-user openstack {job}.file {job}.data {job}.log",
            "openstack image list",
        )

    def describe(self, described: Mapping[str, Any], result: str) -> Mapping[str, str]:
        """Ask Glance as the user."""
        from clouduploader.sandbox.openstack import rest

        user = rest.User(described["auth_url"], **described["user"], ca=described["ca"])
        for region, port in GLANCE_PORTS.items():
            listed = user.call("GET", f"https://127.0.0.1:{port}/v2/images?limit=1000")["images"]
            for image in listed:
                if image["id"] == result:
                    names = ("id", "name", "status", "disk_format", "size", "architecture", "os_hash_value")
                    return {**{name: str(image[name]) for name in names}, "region": region}
        return {}

    def account_values(self, described: Mapping[str, Any]) -> Mapping[str, str]:
        """Return the application credential with the least rights."""
        names = ("application_credential_id", "application_credential_secret")
        return {"cloud": CLOUD_NAME, **{name: described[name] for name in names}}

    def environment(self, layout: Layout) -> dict[str, str]:
        """Return the variables that lead the SDK to the cloud, as the user."""
        paths = OpenStackLayout(layout.root)
        return {"OS_CLIENT_CONFIG_FILE": str(paths.clouds), "OS_CLOUD": CLOUD_NAME}

    def create_emulator(self, services: SandboxServices) -> Emulator:
        """Create all servers; none runs before the first `reset`."""
        from clouduploader.sandbox.openstack.emulator import OpenStackEmulator

        return OpenStackEmulator(services, environment(lambda _: None))


def environment(say: Callable[[str], None]) -> Path:
    """Return where the servers are installed; see `installation.python_environment`."""
    from clouduploader.sandbox.openstack import servers, template

    return installation.python_environment(
        "openstack", servers.REQUIREMENTS, say=say, complete=template.complete, version=template.VERSION
    )
