"""Azure Resource Manager: resources by their ids, and operations that go on for minutes.

Source: "Azure Resource Manager, track asynchronous operations"; the REST reference of Microsoft.Compute.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from clouduploader.errors import AbsentError, ClouduploaderError, PlatformReplyError
from clouduploader.platforms.azure import answers
from clouduploader.plugin import Context, JsonValue
from clouduploader.plugin.answers import check_object
from clouduploader.plugin.http import Answer

if TYPE_CHECKING:
    from clouduploader.platforms.azure.client import AzureClient

VERSIONS = {
    "images": "2024-07-01",
    "disks": "2024-03-02",
    "galleries": "2024-03-03",
    "storageAccounts": "2023-05-01",
    "resourceGroups": "2021-04-01",
    "permissions": "2022-04-01",
    "": "2022-12-01",  # subscriptions
}
"""The api-version of each type of resource, which says what a request and an answer look like."""
FINISHED = ("Succeeded", "Failed", "Canceled")


class ResourceManager:
    """Resource Manager, as one upload or clean-up asks it. Its methods block, and look at the cancellation.

    Args:
        ctx: The account.
    """

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._client: AzureClient = ctx.client
        self._root = self._client.cloud.resource_manager

    def get(
        self,
        path: str,
        *,
        subject: str,
        parameters: Mapping[str, str] | None = None,
        needed: Collection[str] = (),
    ) -> dict[str, Any]:
        """Return a resource, or an answer to something else.

        Args:
            path: Its id, or what follows the address of Resource Manager.
            subject: What it is, for messages.
            parameters: Of the query.
            needed: What the answer must have.

        Raises:
            AbsentError: There is none.
            ClouduploaderError: Azure can't be asked.
        """
        found = self._call("GET", path, subject=subject, parameters=parameters)
        return answers.as_object(found, subject, needed=needed)

    def find(self, path: str, *, subject: str) -> dict[str, Any] | None:
        """Return a resource, or None if there is none."""
        try:
            return self.get(path, subject=subject)
        except AbsentError:
            return None

    def list(self, path: str, *, subject: str, needed: Collection[str] = ()) -> Iterator[dict[str, Any]]:
        """Yield what a collection has, page by page."""
        while path:
            page = self.get(path, subject=subject)
            for found in page.get("value", []):
                yield check_object(found, subject, members=answers.MEMBERS, needed=needed)
            path = self._path_of(str(page.get("nextLink") or ""), subject)

    def put(self, path: str, document: JsonValue, *, subject: str, accepted: Callable[[], None]) -> None:
        """Make a resource of this id, or change it, and wait until that is done; the same request again is no other.

        Args:
            path: See `get`.
            document: The resource.
            subject: See `get`.
            accepted: Called once Azure has begun; the resource shows from then on, even if it fails.
        """
        response = self._call("PUT", path, subject=subject, document=document)
        accepted()
        self._finish(response, subject)

    def post(self, path: str, document: JsonValue = None, *, subject: str) -> dict[str, Any]:
        """Do something with a resource, and wait for what comes out; an empty object if that is nothing."""
        return self._finish(self._call("POST", path, subject=subject, document=document), subject)

    def delete(self, path: str, *, subject: str) -> None:
        """Delete a resource, and wait until it is gone.

        Raises:
            AbsentError: There is none.
        """
        response = self._call("DELETE", path, subject=subject)
        if response.status == 204:  # also what is not there is deleted so
            raise AbsentError(f"{subject} does not show")
        self._finish(response, subject)

    def _call(
        self,
        method: str,
        path: str,
        *,
        subject: str,
        parameters: Mapping[str, str] | None = None,
        document: JsonValue = None,
    ) -> Answer:
        url = path if path.startswith(self._root) else f"{self._root}{path}"
        query = dict(parameters or {})
        if "api-version=" not in path:
            query["api-version"] = VERSIONS[_type_of(path)]

        def ask() -> Answer:
            return self._client.call(
                method,
                url,
                scope=self._client.resource_manager_scope,
                subject=subject,
                parameters=query,
                document=document,
            )

        return answers.patiently(self._ctx, ask, subject=subject)

    def _finish(self, response: Answer, subject: str) -> dict[str, Any]:
        """Wait for the operation that an answer has begun, if it has; return what came out."""
        status_url = self._path_of(response.header("Azure-AsyncOperation"), subject)
        result_url = self._path_of(response.header("Location"), subject)
        if status_url:
            found = self._ctx.poll(
                lambda: _checked(self.get(status_url, subject=subject), subject),
                until="Succeeded",
                pending=("InProgress",),
                state=_state,
            )
            output = found.get("properties", {}).get("output") if isinstance(found.get("properties"), dict) else None
            if output is None and result_url:
                response = self._call("GET", result_url, subject=subject)
            else:
                return output or {}
        elif response.status == 202 and result_url:
            response = self._ctx.poll(
                lambda: self._call("GET", result_url, subject=subject),
                until="Succeeded",
                pending=("InProgress",),
                state=lambda seen: "InProgress" if seen.status == 202 else "Succeeded",
            )
        return answers.as_object(response, subject) if response.data else {}

    def _path_of(self, url: str, subject: str) -> str:
        """Return a URL of an answer, which the token may be sent to.

        Raises:
            PlatformReplyError: It leads elsewhere.
        """
        if url and not url.startswith(f"{self._root}/"):
            raise PlatformReplyError(f"{subject}: Azure sends us to another place than {self._root}")
        return url


def _type_of(path: str) -> str:
    """Return the key of VERSIONS of /subscriptions/S/resourceGroups/G/providers/NAMESPACE/TYPE/... or a shorter one."""
    parts = path.strip("/").split("/")
    return parts[6] if len(parts) > 6 else parts[2] if len(parts) > 2 else ""


def _state(operation: Mapping[str, Any]) -> str:
    return "Succeeded" if operation.get("status") == "Succeeded" else "InProgress"


def _checked(operation: dict[str, Any], subject: str) -> dict[str, Any]:
    """Raise the error that an operation has ended with."""
    if operation.get("status") in FINISHED and operation["status"] != "Succeeded":
        raise operation_error(operation.get("error"), f"{subject}: {operation['status']}")
    return operation


def operation_error(error: object, subject: str) -> ClouduploaderError:
    """Make the error of an operation that failed."""
    said = error if isinstance(error, dict) else {}
    text = ": ".join(str(said[name]) for name in ("code", "message") if said.get(name))
    return PlatformReplyError(": ".join(part for part in (subject, text) if part))
