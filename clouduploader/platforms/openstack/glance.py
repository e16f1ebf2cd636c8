"""The image service of one region: a few calls of the Images API v2, which raise errors of ours.

The calls are made by keystoneauth's session, which renews tokens. It is told not to try anything again: that is
`Context.retry`'s, so that a cancellation is seen and a stream is never sent from its middle.
"""

import contextlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from clouduploader.errors import ClouduploaderError, PlatformReplyError, TransientError, http_error
from clouduploader.model.disk import ImageStream
from clouduploader.plugin.answers import check_object, read_object
from clouduploader.plugin.transfer import ahead

if TYPE_CHECKING:
    import requests
    from keystoneauth1.session import Session

Document = Mapping[str, Any]
"""An image as the API shows it."""

NEEDED = ("created_at", "id", "status", "tags")
MEMBERS: Mapping[str, type] = {"created_at": str, "id": str, "status": str, "tags": list}
"""What of an image is read, whatever it is."""

SEND_TIMEOUTS = (60.0, 3600.0)
"""Seconds for one write to get on; and for the answer behind the last one: a store may first have to copy it all."""
_OCTETS = "application/octet-stream"
_DETAILS = re.compile(r"\n\nFailed validating.*", re.DOTALL)  # of jsonschema, some twenty lines
_SPACE = re.compile(r"(?:<br */?>|\s)+")  # webob puts such tags behind its explanation, also in JSON


class ConflictError(PlatformReplyError):
    """Glance says that the image is there already, or in a state that does not allow the request."""


class Images:
    """The images of one region.

    Args:
        session: Authenticates the requests.
        url: Of the image service, with or without the API's version.
        region: For the messages.
    """

    def __init__(self, session: "Session", url: str, region: str) -> None:
        base = url.rstrip("/")
        self._session = session
        self._url = base if re.search(r"/v2(\.\d+)?$", base) else f"{base}/v2"
        self._region = region
        self.import_methods: str | None = None

    def create(self, document: Document) -> Document:
        """Make an image that waits for its content. The same again gives the same image, for its id is given.

        Args:
            document: With an `id` that no image has had.
        """
        try:
            answer = self._request("POST", "images", json=document)
        except ConflictError:  # an earlier answer was lost
            return self.show(document["id"])
        self.import_methods = answer.headers.get("OpenStack-image-import-methods", "")
        return self._image(answer)

    def show(self, image_id: str) -> Document:
        """Read an image's document."""
        return self._image(self._request("GET", f"images/{image_id}"))

    def find(self, **filters: str) -> Iterator[Document]:
        """List the images that fit all filters; a page after the other."""
        marker: dict[str, str] = {}
        while page := self._list(self._request("GET", "images", params=filters | marker), "images", NEEDED):
            yield from page
            marker = {"marker": str(page[-1]["id"])}

    def delete(self, image_id: str) -> None:
        """Delete an image, in whatever state it is."""
        self._request("DELETE", f"images/{image_id}")

    def send(self, image_id: str, body: "Body", *, is_staged: bool) -> None:
        """Send an image's content. Blocks for as long as that takes, and for an hour more at worst.

        Args:
            image_id: Of an image without content.
            body: It; used once.
            is_staged: Whether it goes to the staging area, for `start_import`.
        """
        self._request(
            "PUT",
            f"images/{image_id}/{'stage' if is_staged else 'file'}",
            data=body,
            headers={"Content-Type": _OCTETS},
            allow_reauth=False,  # the content would be sent from where it stood
            timeout=SEND_TIMEOUTS,
        )

    def start_import(self, image_id: str) -> None:
        """Let Glance take what was staged; it goes on by itself."""
        self._request("POST", f"images/{image_id}/import", json={"method": {"name": "glance-direct"}})

    def members(self, image_id: str) -> set[str]:
        """List the projects that an image is shared with."""
        found = self._list(self._request("GET", f"images/{image_id}/members"), "members", ("member_id",))
        return {item["member_id"] for item in found}

    def share(self, image_id: str, project_id: str) -> None:
        """Share an image with a project; once more does nothing."""
        try:
            self._request("POST", f"images/{image_id}/members", json={"member": project_id})
        except ConflictError:
            if project_id not in self.members(image_id):
                raise

    def _request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        **options: Any,  # noqa: ANN401 of keystoneauth's request
    ) -> "requests.Response":
        answer = self._session.request(
            f"{self._url}/{path}",
            method,
            headers={"Accept": "application/json", **(headers or {})},
            raise_exc=False,
            authenticated=True,
            log=False,
            **options,
        )
        if answer.status_code // 100 != 2:
            raise _error(answer.status_code, answer.text, f"{method} {path} in {self._region}", f"{method} /v2/{path}")
        return answer

    def _image(self, answer: "requests.Response") -> Document:
        return read_object(answer.content, self._subject, members=MEMBERS, needed=NEEDED)

    def _list(self, answer: "requests.Response", name: str, needed: Collection[str]) -> list[Document]:
        found = read_object(answer.content, self._subject, members={name: list}, needed=(name,))
        return [check_object(item, self._subject, members=MEMBERS, needed=needed) for item in found[name]]

    @property
    def _subject(self) -> str:
        return f"region {self._region}: the image service"


class Body:
    """An image's content as requests sends it: in pieces, with its length if that is known, and only once.

    Args:
        stream: The content.

    Attributes:
        len: Its length, by which requests finds it; missing if it is not known.
        is_sent: Whether all of it was taken.
    """

    def __init__(self, stream: ImageStream) -> None:
        if stream.size_bytes is not None:
            self.len = stream.size_bytes
        self.is_sent = False
        self._pieces = iter(stream)
        self._is_taken = False

    def __iter__(self) -> Iterator[bytes]:
        """Give it.

        Raises:
            TransientError: It was given before.
        """
        if self._is_taken:
            raise TransientError("the content was to be sent from its middle")
        self._is_taken = True
        with contextlib.closing(ahead(self._pieces)) as pieces:  # so reading and hashing take no time of their own
            yield from pieces
        self.is_sent = True


def _error(status: int, text: str, subject: str, rule: str) -> ClouduploaderError:
    try:
        found = json.loads(text)
        message = _SPACE.sub(" ", _DETAILS.sub("", str(found["message"])))
    except (ValueError, LookupError, TypeError):  # a proxy's page, for example
        message = ""
    if status == 409:
        return ConflictError(f"{subject}: {message or 'conflict'}")
    error = http_error(status, subject=subject, message=message)
    if status == 401:  # a fresh token was not taken either
        error.hint = f"If the application credential has access rules, it needs one for {rule}."
    return error
