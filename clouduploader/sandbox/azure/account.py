"""One customer's Azure: a tenant with an application, a subscription with a resource group, and who may do what."""

import base64
import datetime
import fnmatch
import json
import secrets
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clouduploader.platforms.azure import rights
from clouduploader.sandbox.azure.page_file import PageFile
from clouduploader.util.frozen import frozen

LOCATIONS = ("eastus", "germanywestcentral", "northeurope", "westeurope")
TOKEN_SECONDS = 3599  # as Microsoft Entra gives them to applications
STORAGE = "https://storage.azure.com"
ISSUER = "https://sts.windows.net/{tenant}/"

Rights = dict[str, tuple[str, ...]]
"""A role's `actions` and `dataActions`, with asterisks, as its definition has them."""


class Refusal(Exception):
    """What an API answers in place of what was asked for.

    Args:
        status: Of HTTP.
        code: In the words of the API.
        message: For people.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@frozen()
class Token:
    """An access token.

    Attributes:
        audience: For which API.
        expires: When.
    """

    audience: str
    expires: datetime.datetime


DEFINITIONS = {
    "bios": {"hyperVGeneration": "V1", "architecture": "x64"},
    "uefi": {"hyperVGeneration": "V2", "architecture": "x64"},
    "arm64": {"hyperVGeneration": "V2", "architecture": "Arm64"},
}
"""The image definitions of the gallery, by their names."""


class AzureAccount:
    """The state of all of it. Used by one thread, that of the event loop, but for `contents`, `reset` and `expire`.

    Args:
        directory: Holds the content of blobs, disks and images; there, private and empty.
        now: The cloud's clock.

    Attributes:
        tenant: Its id.
        application_id: Of the application that uploads.
        application_key: Its secret.
        certificates: SHA-1 digests, base64url, of certificates that prove it too.
        subscription: Its id.
        other_subscriptions: Ids of others, with nothing in them, that are shown to the application too.
        group: The name of its resource group.
        gallery_group: The name of a resource group with the gallery, in which the application may do the same.
        gallery: The name of the gallery; it has an image definition for each of DEFINITIONS.
        other_groups: Names of others, which are shown to the application, and in which it may do nothing.
        location: Of that.
        storage_account: The name of its storage account.
        storage_location: Where that is.
        container: A container in it.
        blob_endpoint: Where that is.
        rights: What the application may do in the resource group: what the guide for its user says, and no more.
        resources: All resources, by their ids in lower case, as Resource Manager shows them.
        definitions: Image definitions of galleries, in the same way.
        disks: What is in disks and images, by their ids in lower case.
        signatures: The disks that can be written, by the secret in their URL.
        pace_seconds: How long an operation takes that goes on in the background.
        image_quota: How many images there may be.
    """

    def __init__(self, directory: Path, now: Callable[[], datetime.datetime]) -> None:
        self._directory = directory
        self.now = now
        self.lock = threading.RLock()
        self.blob_endpoint = ""
        self.reset()

    def reset(self) -> None:
        """Return to the beginning, as another customer."""
        self.tenant, self.subscription, self.application_id = (str(uuid.uuid4()) for _ in range(3))
        self.application_key = f"{secrets.token_urlsafe(24)}~Q"
        self.certificates: set[str] = set()
        self.other_subscriptions: list[str] = []
        self.other_groups: list[str] = []
        self.group, self.location = "clouduploader-sandbox", "westeurope"
        self.storage_account, self.container = "clouduploadersandbox", "images"
        self.storage_location = self.location
        least = rights.chosen(rights.EXTRAS)
        self.rights: Rights = {"actions": least.actions, "dataActions": least.data_actions}
        self.resources: dict[str, dict[str, Any]] = {}
        self.gallery_group, self.gallery = "clouduploader-galleries", "sandbox"
        self.definitions: dict[str, dict[str, Any]] = {}
        for name, facts in DEFINITIONS.items():
            self.define_image(self.gallery_group, self.gallery, name, **facts)
        self.disks: dict[str, PageFile] = {}
        self.signatures: dict[str, str] = {}
        self.pace_seconds = 0.0
        self.image_quota = 1000
        self._tokens: dict[str, Token] = {}
        for path in self._directory.iterdir():
            path.unlink()

    @property
    def group_id(self) -> str:
        """The resource group's id."""
        return self.id_of_group(self.group)

    def id_of_group(self, name: str) -> str:
        """Return the id of a resource group."""
        return f"/subscriptions/{self.subscription}/resourceGroups/{name}"

    def define_image(self, group: str, gallery: str, name: str, **facts: str) -> str:
        """Make an image definition, and its gallery; return its id."""
        thing_id = f"{self.id_of_group(group)}/providers/Microsoft.Compute/galleries/{gallery}/images/{name}"
        properties = {"osType": "Linux", "osState": "Generalized", "provisioningState": "Succeeded", **facts}
        self.definitions[thing_id.lower()] = {"id": thing_id, "location": self.location, "properties": properties}
        return thing_id

    def new_path(self) -> Path:
        """Return where something can be stored."""
        return self._directory / uuid.uuid4().hex

    def issue(self, audience: str) -> str:
        """Make an access token that looks like one of Microsoft Entra's; its signature is none."""
        now = self.now()
        expires = now + datetime.timedelta(seconds=TOKEN_SECONDS)
        claims = {
            "aud": audience,
            "iss": ISSUER.format(tenant=self.tenant),
            "iat": int(now.timestamp()) - 5,
            "nbf": int(now.timestamp()) - 5,
            "exp": int(expires.timestamp()),
            "appid": self.application_id,
            "tid": self.tenant,
            "ver": "1.0",
            "uti": secrets.token_urlsafe(16),
        }
        head = {"typ": "JWT", "alg": "RS256", "kid": "sandbox"}
        parts = [json.dumps(part).encode() for part in (head, claims)]
        token = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (*parts, b"no signature"))
        self._tokens[token] = Token(audience, expires)
        return token

    def expire(self) -> None:
        """Let all tokens expire now."""
        with self.lock:
            past = self.now() - datetime.timedelta(seconds=1)
            self._tokens = {text: Token(token.audience, past) for text, token in self._tokens.items()}

    def check_token(self, header: str, audience: str) -> None:
        """Check the header Authorization.

        Raises:
            Refusal: It has no token of this account, or one for another audience.
        """
        token = self._tokens.get(header.removeprefix("Bearer "))
        if not header.startswith("Bearer ") or token is None:
            raise Refusal(401, "InvalidAuthenticationToken", "The access token is invalid.")
        if token.audience.rstrip("/") != audience.rstrip("/"):
            raise Refusal(
                401,
                "InvalidAuthenticationTokenAudience",
                f"The access token has been obtained for wrong audience or resource '{token.audience}'.",
            )
        if token.expires <= self.now():
            raise Refusal(401, "ExpiredAuthenticationToken", "The access token expired.")

    def check_right(self, action: str, scope: str, *, kind: str = "actions") -> None:
        """Check whether the application may do something.

        Raises:
            Refusal: It may not.
        """
        if not any(fnmatch.fnmatchcase(action.lower(), allowed.lower()) for allowed in self.rights[kind]):
            if kind == "dataActions":
                message = "This request is not authorized to perform this operation using this permission."
                raise Refusal(403, "AuthorizationPermissionMismatch", message)
            raise Refusal(
                403,
                "AuthorizationFailed",
                f"The client '{self.application_id}' with object id '{self.application_id}' does not have "
                f"authorization to perform action '{action}' over scope '{scope}' or the scope is invalid. If access "
                "was recently granted, please refresh your credentials.",
            )

    def contents(self) -> dict[str, Any]:
        """Return what is there, for tests."""
        with self.lock:
            return {
                "resources": {found["id"]: found for found in self.resources.values()},
                "disks": {self.resources[key]["id"]: str(file.path) for key, file in self.disks.items()},
            }
