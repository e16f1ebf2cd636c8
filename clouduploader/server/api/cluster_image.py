"""The image of a claimed job, as its host fetches it: from here, or from an object store."""

import asyncio
import contextlib
import errno
from typing import Annotated, BinaryIO

from aiohttp import web
from msgspec import Meta

from clouduploader.errors import ClouduploaderError
from clouduploader.server.access import Right
from clouduploader.server.api import cluster, documents
from clouduploader.server.api.endpoint import Endpoint, endpoint
from clouduploader.server.call import RouteCall
from clouduploader.server.replies import RefusalError
from clouduploader.server.send_image import CONTENT_TYPE
from clouduploader.util import files, privileges

PASSING_ERRNOS = (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # no word about the lease: the host asks again


class ImagePlace(documents.Given):
    """Which claim an image is wanted for."""

    attempt: cluster.Attempt
    claim: cluster.ClaimId
    direct: Annotated[bool, Meta(description="Whether the server is to send it, and no object store.")] = False


async def send_image(call: RouteCall) -> web.StreamResponse:
    """Send the image of a claimed job, or a range of it, as long as the host has its lease; or say where it is."""
    found, given, name = cluster.cluster_of(call), documents.query(call, ImagePlace), call.found.job

    def check() -> None:
        found.leases.check(name, given.attempt, given.claim)

    def lend() -> str | None:
        with contextlib.suppress(ClouduploaderError):  # then it is sent from here
            return found.lend_image(name)
        return None

    def open_image() -> tuple[BinaryIO, str]:
        path = call.state.jobs.file_path(name)
        with contextlib.ExitStack() as undo:
            try:
                with privileges.as_owner(call.state.jobs.directory):
                    image = undo.enter_context(files.open_read(path))
            except OSError as exc:
                status = 503 if exc.errno in PASSING_ERRNOS else 409
                raise RefusalError(f"the image can't be read: {exc.strerror}", status=status) from exc
            sha256 = found.leases.sha256(name)
            if sha256 is None:
                raise RefusalError("the image has changed since the job was published", status=409)
            undo.pop_all()
            return image, sha256

    check()
    if call.request.method == "GET" and not given.direct and (url := await asyncio.to_thread(lend)):
        answer = web.Response(status=307, headers={"Location": url, **documents.HEADERS})
        answer.force_close()  # as all answers about images: they have connections of their own
        return answer
    image, sha256 = await asyncio.to_thread(open_image)
    with image:
        return await call.state.sender.answer(call.request, image, sha256=sha256, check=check)


ROUTES: list[Endpoint] = [
    endpoint(
        "/cluster/jobs/$job/image",
        send_image,
        Right.WORK,
        query=ImagePlace,
        answer_type=CONTENT_TYPE,
        statuses={206: "The range that was asked for.", 307: "It is in an object store, at that place."},
        request_headers={
            "Range": "Which bytes, such as `bytes=100-`.",
            "If-Range": "Of which image: if it is another one now, all of it comes.",
        },
        refusals=(409, 416),
    ),
]
