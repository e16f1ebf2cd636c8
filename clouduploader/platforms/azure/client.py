"""One account of Azure: requests with its tokens, to Resource Manager and to storage."""

import functools
from collections.abc import Mapping
from typing import Any

from clouduploader.errors import PlatformReplyError, TransientError
from clouduploader.platforms.azure import answers
from clouduploader.platforms.azure.settings import CLOUDS, AzureSettings, Cloud
from clouduploader.platforms.azure.tokens import EntraTokens
from clouduploader.plugin import Context, JsonValue, http
from clouduploader.plugin.http import Answer, HttpClient

SPARE_CONNECTIONS = 2  # for calls beside the pages


class AzureClient:
    """One account of Azure. Its methods may be called by several threads.

    Args:
        ctx: The account.
        settings: See AzureSettings.
        environment: See HttpClient.

    Attributes:
        cloud: Its addresses.
    """

    def __init__(self, ctx: Context, settings: AzureSettings, environment: Mapping[str, str]) -> None:
        self._http = HttpClient(environment, settings.connections + SPARE_CONNECTIONS)
        self.cloud = CLOUDS.get(settings.cloud) or self._private_cloud(settings.cloud)
        self._tokens = EntraTokens(self.cloud, self._http, ctx)

    def crc64(self, data: bytes) -> int:
        """Make the checksum that storage calls CRC64. MD5, which it takes too, costs 1.7 s of CPU a GiB; this 0.07."""
        return int(self._crc64_model.calc(data))

    @functools.cached_property
    def _crc64_model(self) -> Any:  # noqa: ANN401 anycrc has no types
        import anycrc

        return anycrc.Model("CRC64-NVME")

    @property
    def resource_manager_scope(self) -> str:
        """What a token for Resource Manager is asked for."""
        return f"{self.cloud.resource_manager}/.default"

    def call(
        self,
        method: str,
        url: str,
        *,
        scope: str | None,
        subject: str,
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
        document: JsonValue = None,
        data: bytes | None = None,
    ) -> Answer:
        """Make one request, once. Blocks.

        Args:
            method: Of HTTP.
            url: May hold a secret, the signature of a disk's URL: it is never told.
            scope: What the token is for; None where the URL itself is the key.
            subject: What is asked for, for messages.
            headers: Others than those of the login.
            parameters: Of the query, besides those of the URL.
            document: Sent as JSON.
            data: Sent as it is.

        Raises:
            ClouduploaderError: No answer, or a refusal.
        """
        token = self._tokens.get(scope) if scope else ""
        body, sent = http.as_json(document)
        if token:
            sent["Authorization"] = f"Bearer {token}"
        found = self._http.request(
            method,
            http.encoded(url, parameters or {}),
            subject=subject,
            headers={**sent, **(headers or {})},
            data=body if data is None else data,
        )
        if token and found.status == 401:
            if self._tokens.refused(token):
                raise TransientError(f"{subject}: the token has expired")
            raise answers.error(found, subject)
        if token:
            self._tokens.accepted(token)
        if found.status >= 300:
            raise answers.error(found, subject)
        return found

    def _private_cloud(self, url: str) -> Cloud:
        url = url.rstrip("/")
        subject = f"the cloud {url}"
        query = {"api-version": answers.METADATA_VERSION}
        found = answers.as_object(
            self.call("GET", f"{url}/metadata/endpoints", scope=None, subject=subject, parameters=query), subject
        )
        try:
            authority = str(found["authentication"]["loginEndpoint"]).rstrip("/")
            suffix = str(found["suffixes"]["storage"])
        except (KeyError, TypeError):
            raise PlatformReplyError(f"{subject} does not tell its addresses") from None
        if not authority.startswith("https://"):
            raise PlatformReplyError(f"{subject} lets log in at {authority}, where others could read the secret")
        return Cloud(authority=authority, resource_manager=url, storage_suffix=suffix, is_private=True)
