"""Paths and addresses of Google's cloud in a sandbox."""

from pathlib import Path

from clouduploader.sandbox.layout import Layout
from clouduploader.util.frozen import frozen

PORT, BACK_PORT, EMULATOR_PORT = 6443, 6080, 6081  # any will do: a network namespace is new
API_URL = f"https://127.0.0.1:{PORT}/{{service}}"
PROJECT = "clouduploader-sandbox"
BUCKET = "clouduploader-sandbox-archives"
EMAIL = f"clouduploader@{PROJECT}.iam.gserviceaccount.com"


@frozen()
class GceLayout(Layout):
    """The paths of Google's cloud in a sandbox's directory, beside those that every sandbox has."""

    @property
    def key(self) -> Path:
        """The JSON key of the service account."""
        return self.root / "key.json"

    @property
    def disks(self) -> Path:
        """The raw disk of each image, a sparse file."""
        return self.root / "disks"

    @property
    def certificate(self) -> Path:
        """Private key and certificate of the endpoint."""
        return self.root / "google.pem"
