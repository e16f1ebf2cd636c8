"""What stands before gcp-storage-emulator: rights, and the rules of resumable uploads that it lacks.

Sources: Cloud Storage, "Resumable uploads" and "Perform resumable uploads"; JSON API, objects and buckets.
"""

import asyncio
import base64
import io
import json
import re
import secrets
import urllib.parse
from pathlib import Path
from typing import Any

import aiohttp
import google_crc32c
import yarl
from aiohttp import web

from clouduploader.sandbox.gce.identity import BUCKET, Identity
from clouduploader.sandbox.gce.refusal import RefusedError

GRANULE_BYTES = 256 << 10  # "multiples of 256 KiB, unless it's the last chunk"; the service keeps whole ones only
OBJECT_PATH = re.compile(r"/storage/v1/b/(?P<bucket>[^/]+)/o(?:/(?P<name>[^/]+))?")
TEST_PATH = re.compile(r"/storage/v1/b/(?P<bucket>[^/]+)/iam/testPermissions")
UPLOAD_PATH = re.compile(r"/upload/storage/v1/b/(?P<bucket>[^/]+)/o")
RANGE = re.compile(r"bytes (?:(?P<first>\d+)-(?P<last>\d+)|\*)/(?P<total>\d+|\*)")
_PERMISSIONS = {"GET": "storage.objects.get", "DELETE": "storage.objects.delete"}


class _Session:
    """A resumable upload.

    Args:
        url: Of the emulator's.
        name: Of the object.

    Attributes:
        url: As given; so is name.
        data_bytes: What it has.
        crc32c: Of that.
        document: The object, once it is complete.
        lock: Held by the request that is being answered.
    """

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self.name = name
        self.data_bytes = 0
        self.document: dict[str, Any] | None = None
        self.crc32c = 0
        self.lock = asyncio.Lock()


class StorageGate:
    """Answers for Cloud Storage.

    Args:
        identity: Who may do what.
        backend: The URL of the emulator.
        bucket: The name of the bucket.
    """

    def __init__(self, identity: Identity, *, backend: str, bucket: str) -> None:
        self._identity = identity
        self._backend = backend
        self._bucket = bucket
        self._sessions: dict[str, _Session | None] = {}  # None for one that was given up

    @property
    def sessions(self) -> list[str]:
        """The objects that are being uploaded."""
        return [one.name for one in self._sessions.values() if one and one.document is None]

    def forget(self) -> None:
        """Let all sessions lapse, as they do after a week."""
        self._sessions.clear()

    async def answer(self, request: web.Request, path: str, base: str) -> web.Response:
        """Answer a request.

        Args:
            request: Its path is not looked at.
            path: Of the API.
            base: The URL that stands before the path.

        Raises:
            RefusedError: It is refused.
        """
        if found := UPLOAD_PATH.fullmatch(path):
            self._check_bucket(found["bucket"])
            return await self._upload(request, base)
        self._identity.authenticate(request, "storage")
        if found := TEST_PATH.fullmatch(path):
            self._check_bucket(found["bucket"])
            return self._identity.test(BUCKET, request.query.getall("permissions", []))
        found = OBJECT_PATH.fullmatch(path)
        if not found or request.method not in _PERMISSIONS:
            raise RefusedError(404, "notFound", "Not Found")
        self._check_bucket(found["bucket"])
        permission = _PERMISSIONS[request.method] if found["name"] else "storage.objects.list"
        self._identity.require(BUCKET, permission, "the Google Cloud Storage object" if found["name"] else "the bucket")
        status, body = await self._ask(request.method, f"{path}?{request.query_string}")
        if status == 404:
            raise RefusedError(404, "notFound", f"No such object: {found['bucket']}/{found['name']}")
        return web.Response(status=status, body=body, content_type="application/json")

    async def objects(self) -> list[dict[str, Any]]:
        """List what is in the bucket."""
        _status, body = await self._ask("GET", f"/storage/v1/b/{self._bucket}/o")
        items: list[dict[str, Any]] = json.loads(body).get("items", [])
        return items

    async def save(self, name: str, path: Path) -> bool:
        """Write an object into a file; tell whether there is one."""
        quoted = urllib.parse.quote(name, safe="")
        status, body = await self._ask("GET", f"/storage/v1/b/{self._bucket}/o/{quoted}?alt=media")
        if status == 200:
            path.write_bytes(body)
        return status == 200

    def _check_bucket(self, name: str) -> None:
        if name != self._bucket:
            raise RefusedError(404, "notFound", "The specified bucket does not exist.")

    async def _upload(self, request: web.Request, base: str) -> web.Response:
        key = request.query.get("upload_id")
        if key is None:
            return await self._begin(request, base)
        if "Authorization" in request.headers:  # the session's URI is enough, but what is wrong is refused
            self._identity.authenticate(request, "storage")
        if key not in self._sessions:
            raise RefusedError(404, "notFound", "Not Found")
        session = self._sessions[key]
        if session is None or request.method == "DELETE":
            self._sessions[key] = None
            return web.Response(status=499)
        async with session.lock:  # what a request that breaks off has brought is there when it is asked for
            return await self._put(request, session)

    async def _begin(self, request: web.Request, base: str) -> web.Response:
        self._identity.authenticate(request, "storage")
        self._identity.require(BUCKET, "storage.objects.create", "the Google Cloud Storage object")
        if request.method != "POST" or request.query.get("uploadType") != "resumable":
            raise RefusedError(400, "invalid", "uploadType must be resumable here")
        metadata = await request.json()
        name = metadata.get("name", "")
        if not name or len(name.encode()) > 1024 or re.search(r"[\r\n]", name):
            raise RefusedError(400, "invalid", "Invalid object name.")
        if request.query.get("ifGenerationMatch") == "0" and name in [one["name"] for one in await self.objects()]:
            raise RefusedError(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")
        path = f"/upload/storage/v1/b/{self._bucket}/o?uploadType=resumable"
        async with aiohttp.ClientSession() as client, client.post(f"{self._backend}{path}", json=metadata) as made:
            session = _Session(made.headers["Location"], name)
        key = secrets.token_urlsafe(64)
        self._sessions[key] = session
        return web.Response(headers={"Location": f"{base}{path}&upload_id={key}"})

    async def _put(self, request: web.Request, session: _Session) -> web.Response:
        asked = RANGE.fullmatch(request.headers.get("Content-Range", ""))
        if not asked:
            raise _bad_request("The Content-Range header is missing or wrong.")
        if session.document is not None:
            return web.json_response(session.document)
        total = None if asked["total"] == "*" else int(asked["total"])
        if asked["first"] is not None:
            await self._take(request, session, int(asked["first"]), int(asked["last"]), total)
        if total is not None and session.data_bytes == total:
            return await self._finish(session)
        headers = {"Range": f"bytes=0-{session.data_bytes - 1}"} if session.data_bytes else {}
        return web.Response(status=308, headers=headers)

    async def _take(self, request: web.Request, session: _Session, first: int, last: int, total: int | None) -> None:
        """Take a chunk; of one that breaks off, what came in whole granules."""
        length = last + 1 - first
        if request.content_length is not None and request.content_length != length:
            raise _bad_request("The Content-Range does not match the Content-Length.")
        if total is None and length % GRANULE_BYTES:
            raise _bad_request("Chunks must be a multiple of 262144 bytes.")
        if first > session.data_bytes:
            raise _bad_request(f"The offset is {first}, but {session.data_bytes} bytes have been uploaded.")
        data = bytearray()
        broken = None
        try:
            async for piece in request.content.iter_any():
                data += piece
        except (ConnectionError, aiohttp.ClientError, web.RequestPayloadError) as exc:
            broken = exc
            del data[len(data) // GRANULE_BYTES * GRANULE_BYTES :]
        del data[: session.data_bytes - first]
        self._check_hash(request, session, bytes(data), is_whole=broken is None and total == last + 1)
        if data:
            headers = {"Content-Range": f"bytes {session.data_bytes}-{session.data_bytes + len(data) - 1}/*"}
            async with (
                aiohttp.ClientSession() as client,
                client.put(session.url, data=io.BytesIO(data), headers=headers) as answer,
            ):
                if answer.status != 308:
                    raise RefusedError(503, "backendError", f"the emulator answers {answer.status}")
            session.data_bytes += len(data)
            session.crc32c = google_crc32c.extend(session.crc32c, bytes(data))
        if broken:
            raise broken

    @staticmethod
    def _check_hash(request: web.Request, session: _Session, data: bytes, *, is_whole: bool) -> None:
        given = request.headers.get("X-Goog-Hash", "").removeprefix("crc32c=")
        found = base64.b64encode(google_crc32c.extend(session.crc32c, data).to_bytes(4, "big")).decode()
        if given and is_whole and given != found:
            raise RefusedError(400, "invalid", f"Provided CRC32C {given} doesn't match calculated CRC32C {found}.")

    async def _finish(self, session: _Session) -> web.Response:
        headers = {"Content-Range": f"bytes */{session.data_bytes}"}
        async with aiohttp.ClientSession() as client, client.put(session.url, headers=headers) as answer:
            session.document = await answer.json()
        return web.json_response(session.document)

    async def _ask(self, method: str, path: str) -> tuple[int, bytes]:
        async with (
            aiohttp.ClientSession() as client,
            client.request(method, yarl.URL(f"{self._backend}{path}", encoded=True)) as answer,
        ):
            return answer.status, await answer.read()


def _bad_request(message: str) -> RefusedError:
    return RefusedError(400, "badRequest", f"Invalid request. {message}")
