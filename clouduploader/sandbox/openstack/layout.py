"""Paths and addresses of OpenStack in a sandbox."""

from pathlib import Path

from clouduploader.sandbox.layout import Layout
from clouduploader.util.frozen import frozen

KEYSTONE_PORT = 5000  # Keystone's, and 9292 Glance's by custom
GLANCE_PORTS = {"RegionOne": 9292, "RegionTwo": 9293}
KEYSTONE_BEHIND = 15000
GLANCES_BEHIND = {"RegionOne": 19292, "RegionTwo": 19293}
"""Ports of the servers themselves, behind the gateway."""
KEYSTONE = f"http://127.0.0.1:{KEYSTONE_BEHIND}"
AUTH_URL = f"https://127.0.0.1:{KEYSTONE_PORT}/v3"
CLOUD_NAME = "sandbox"
"""In clouds.yaml."""


@frozen()
class OpenStackLayout(Layout):
    """The paths of a sandbox with an OpenStack."""

    @property
    def servers(self) -> Path:
        """Holds the files of the servers; see `servers`."""
        return self.root / "servers"

    @property
    def certificate(self) -> Path:
        """Key and certificate of the endpoints."""
        return self.root / "endpoints.pem"

    @property
    def clouds(self) -> Path:
        """The clouds.yaml of the person in the sandbox; the home has another."""
        return self.root / "clouds.yaml"
