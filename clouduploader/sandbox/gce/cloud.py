"""Google's cloud as the command line, `host` and `init` know it; loads none of its libraries."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from clouduploader.sandbox.cloud import Emulator, SandboxCloud, SandboxServices
from clouduploader.sandbox.gce.layout import BUCKET, PROJECT, GceLayout
from clouduploader.sandbox.layout import Layout


@dataclasses.dataclass(frozen=True, kw_only=True)
class GceCloud(SandboxCloud):
    """An emulated project of Google's cloud."""

    target = "gce"
    contents = "a project of Google's cloud with a bucket, and a service account that may do what uploads need"
    advice = "Try the following: upload an image; have the service upload one, and job 1; do with job 1 what OBS does."
    programs = MappingProxyType({"gpg": "gnupg", "openssl": "openssl"})
    modules = ("aiohttp", "google.auth", "google_crc32c", "gcp_storage_emulator")
    variable_prefixes = ("GOOGLE_", "CLOUDSDK_", "GCE_METADATA_", "REQUESTS_CA_BUNDLE")
    server_environment = MappingProxyType({})

    def install(self, say: Callable[[str], None]) -> None:
        """Install nothing: all of it comes with the extra `sandbox`."""

    def headline(self, described: Mapping[str, Any]) -> str:
        """Name the endpoint."""
        return f"{described['api_url'].removesuffix('/{service}')}; nothing in it is real"

    def facts(self, described: Mapping[str, Any]) -> Mapping[str, str]:
        """Return what an upload by hand is told."""
        return {
            "project": described["project"],
            "bucket": described["bucket"],
            "service account": f"{described['service_account']}, its key in GOOGLE_APPLICATION_CREDENTIALS",
        }

    def examples(self, layout: Layout) -> Sequence[str]:
        """Return an upload by hand, one by the service, and what OBS does."""
        job = layout.spool / "1"
        return (
            f"clouduploader upload --target gce --bucket {BUCKET} --name my-image {layout.sample}",
            "clouduploader list",
            "clouduploader serve 2>serve.log &",
            f"clouduploader submit --wait --target gce --name my-other-image {layout.sample}",
            f"clouduploader sandbox-user gce {job}.file {job}.data {job}.log",
        )

    def describe(self, described: Mapping[str, Any], result: str) -> Mapping[str, str]:
        """Ask as the service account."""
        import google.auth
        from google.auth.transport.requests import AuthorizedSession

        credentials, project = google.auth.default(scopes=["https://www.googleapis.com/auth/compute"])
        url = described["api_url"].replace("{service}", "compute")
        session = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]
        image = session.get(f"{url}/compute/v1/projects/{project}/global/images/{result}").json()
        keys = ("name", "status", "architecture", "diskSizeGb", "archiveSizeBytes", "guestOsFeatures", "labels")
        return {key: str(image.get(key)) for key in keys}

    def account_values(self, described: Mapping[str, Any]) -> Mapping[str, str]:
        """Return the service account."""
        return {name: str(described[name]) for name in ("credentials", "project", "bucket")}

    def environment(self, layout: Layout) -> dict[str, str]:
        """Return the variables that lead google-auth to the service account, and let requests believe the endpoint."""
        paths = GceLayout(layout.root)
        return {
            "GOOGLE_APPLICATION_CREDENTIALS": str(paths.key),
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            "REQUESTS_CA_BUNDLE": str(paths.ca),
        }

    def create_emulator(self, services: SandboxServices) -> Emulator:
        """Create all servers; none listens before the first `reset`."""
        from clouduploader.sandbox.gce.emulator import GceEmulator

        return GceEmulator(services)
