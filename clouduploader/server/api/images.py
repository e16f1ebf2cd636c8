"""Images in resumable pieces, by the protocol of tus 1.0 (https://tus.io), and as JSON."""

import asyncio
import base64
import binascii
import datetime
import email.utils
import functools
from collections.abc import Mapping
from typing import Annotated

from aiohttp import web
from msgspec import Meta

from clouduploader.errors import ClouduploaderError, MissingFileError
from clouduploader.server import quotas, routing
from clouduploader.server.access import Right
from clouduploader.server.api import documents, problems
from clouduploader.server.api.endpoint import ROOT, Endpoint, endpoint
from clouduploader.server.call import Handler, RouteCall
from clouduploader.server.receive import piece_receiver
from clouduploader.server.replies import RefusalError
from clouduploader.store.images import StoredImage

VERSION = "1.0.0"  # of tus
EXTENSIONS = "creation,expiration,checksum,termination"
PIECE_TYPE = "application/offset+octet-stream"
FILENAME = "filename"  # the metadata that is the image's name
MAX_METADATA = 16  # names
MAX_METADATA_CHARS = 4096
HEADERS = {"Tus-Resumable": "The version of tus: 1.0.0."}


class ImageEntry(documents.Document):
    """An image that comes in pieces."""

    id: str
    user: Annotated[str | None, Meta(description="Whose it is; null if it came without a token.")]
    size: Annotated[int, Meta(description="How many bytes it is to have.")]
    offset: Annotated[int, Meta(description="How many of them are safely here.")]
    metadata: Annotated[dict[str, str], Meta(description="What its sender says of it, such as `filename`.")]
    created: documents.Time
    expires: Annotated[documents.Time, Meta(description="When it is removed unless more of it comes.")]
    job: Annotated[str | None, Meta(description="The job that was made of it.")]


class ImageList(documents.Document):
    """Images that come in pieces, the newest first."""

    images: list[ImageEntry]


def _tus(handler: Handler) -> Handler:
    """Make a handler speak tus: it checks the version of a request, and every answer has it."""

    @functools.wraps(handler)
    async def speak(call: RouteCall) -> web.StreamResponse:
        answer: web.StreamResponse
        try:
            if call.request.headers.get("Tus-Resumable") != VERSION:
                refused = f"Tus-Resumable must be {VERSION}"
                raise RefusalError(refused, status=412, headers={"Tus-Version": VERSION})
            answer = await handler(call)
        except ClouduploaderError as exc:
            answer = problems.answer(exc)
        answer.headers["Tus-Resumable"] = VERSION
        return answer

    return speak


async def show_abilities(_call: RouteCall) -> web.StreamResponse:
    """Tell what of tus the server can."""
    answer = documents.nothing()
    abilities = {"Tus-Resumable": VERSION, "Tus-Version": VERSION, "Tus-Extension": EXTENSIONS}
    answer.headers.update(abilities | {"Tus-Checksum-Algorithm": ",".join(piece_receiver.ALGORITHMS)})
    return answer


async def list_images(call: RouteCall) -> web.StreamResponse:
    """List the images that come in pieces."""
    found = await asyncio.to_thread(call.state.images.images)
    entries = [_entry(call, image) for image in found if call.owner in (None, image.owner)]
    return documents.answer(ImageList(images=entries))


@_tus
async def create_image(call: RouteCall) -> web.StreamResponse:
    """Begin an image; its pieces follow."""
    headers = call.request.headers
    size = _number(headers.get("Upload-Length"), "Upload-Length")
    if not size:
        raise RefusalError("the image is empty")
    metadata = _metadata(headers.get("Upload-Metadata", ""))
    state, owner = call.state, call.owner
    state.receiver.check_space(size)
    state.receiver.check_inodes()

    def make() -> StoredImage:
        if owner is not None:
            quotas.check_room(state.jobs, state.settings, owner, size, images=state.images, taken=None)
        now = datetime.datetime.now(datetime.UTC)
        made = state.images.create(call.principal.user, size, metadata=metadata, now=now)
        state.log.tell("begun", image=made.id, user=made.owner, size=size)
        return made

    async with state.creating:
        image = await asyncio.to_thread(make)
    answer = documents.answer(_entry(call, image), status=201, location=f"{ROOT}/images/{image.id}")
    answer.headers["Upload-Expires"] = _http_date(_expires(call, image))
    return answer


async def show_image(call: RouteCall) -> web.StreamResponse:
    """Tell what is here of an image."""
    return documents.answer(_entry(call, await find(call, call.found.parts["image"])))


@_tus
async def show_offset(call: RouteCall) -> web.StreamResponse:
    """Tell how much of an image is here; a request that still sends some of it is ended."""
    name = call.found.parts["image"]
    await find(call, name)
    await call.state.pieces.end(name)
    image = await find(call, name)
    answer = documents.nothing()
    answer.set_status(200)
    answer.headers.update(
        {
            "Upload-Offset": str(image.offset_bytes),
            "Upload-Length": str(image.size_bytes),
            "Upload-Metadata": _encoded(image.metadata),
            "Upload-Expires": _http_date(_expires(call, image)),
        }
    )
    return answer


@_tus
async def receive_piece(call: RouteCall) -> web.StreamResponse:
    """Receive a piece of an image; if it breaks off, what came of it stays."""
    name, headers = call.found.parts["image"], call.request.headers
    await find(call, name)
    if call.request.content_type != PIECE_TYPE:
        raise RefusalError(f"the body must be {PIECE_TYPE}", status=415)
    offset = await call.state.pieces.receive(
        name,
        call.request,
        offset_bytes=_number(headers.get("Upload-Offset"), "Upload-Offset"),
        checksum=headers.get("Upload-Checksum"),
    )
    image = await find(call, name)
    if image.is_whole:
        call.state.log.tell("received", image=name, user=image.owner, bytes=image.size_bytes)
    answer = documents.nothing()
    answer.headers["Upload-Offset"] = str(offset)
    answer.headers["Upload-Expires"] = _http_date(_expires(call, image))
    return answer


@_tus
async def remove_image(call: RouteCall) -> web.StreamResponse:
    """Remove an image; a job that was made of it stays."""
    name = call.found.parts["image"]
    await find(call, name)
    await call.state.pieces.end(name)
    async with call.state.creating:  # no job is being made of it
        await asyncio.to_thread(call.state.images.remove, name)
    return documents.nothing()


async def find(call: RouteCall, name: str) -> StoredImage:
    """Find an image that the one who asks may see.

    Raises:
        RefusalError: There is none.
    """
    missing = RefusalError("there is no such image", status=404)
    try:
        image = await asyncio.to_thread(call.state.images.find, name)
    except MissingFileError:
        raise missing from None
    if call.owner not in (None, image.owner):
        raise missing
    return image


def _entry(call: RouteCall, image: StoredImage) -> ImageEntry:
    return ImageEntry(
        id=image.id,
        user=image.owner,
        size=image.size_bytes,
        offset=image.offset_bytes,
        metadata=dict(image.metadata),
        created=image.created,
        expires=_expires(call, image),
        job=image.job,
    )


def _expires(call: RouteCall, image: StoredImage) -> datetime.datetime:
    return image.changed + datetime.timedelta(seconds=call.state.settings.image_seconds)


def _http_date(moment: datetime.datetime) -> str:
    return email.utils.format_datetime(moment, usegmt=True)


def _number(text: str | None, header: str) -> int:
    """Return the number of a header.

    Raises:
        RefusalError: It is missing, or has none.
    """
    if text is None or not (text.isascii() and text.isdigit()):
        raise RefusalError(f"{header} must be a number of bytes")
    return routing.to_integer(text)


def _metadata(text: str) -> dict[str, str]:
    """Read the header of tus: names, and behind a blank their values in Base64.

    Raises:
        RefusalError: It is none.
    """
    pairs = [pair.strip().partition(" ") for pair in text.split(",") if pair.strip()]
    if len(text) > MAX_METADATA_CHARS or len(pairs) > MAX_METADATA:
        raise RefusalError(f"Upload-Metadata may have {MAX_METADATA} names and {MAX_METADATA_CHARS} characters")
    try:
        found = {name: base64.b64decode(encoded, validate=True).decode() for name, _, encoded in pairs}
    except (binascii.Error, ValueError):
        raise RefusalError("Upload-Metadata must have values in Base64") from None
    if not all(name.isascii() and name.isprintable() for name in found):
        raise RefusalError("Upload-Metadata must have names of ASCII")
    return found


def _encoded(metadata: Mapping[str, str]) -> str:
    """Return metadata as `_metadata` reads them."""
    return ",".join(f"{name} {base64.b64encode(text.encode()).decode()}" for name, text in metadata.items())


_OFFSET = {**HEADERS, "Upload-Offset": "Where the piece begins.", "Upload-Checksum": "Algorithm and digest in Base64."}
_CREATION = {
    **HEADERS,
    "Upload-Length": "How many bytes the image is to have.",
    "Upload-Metadata": "Names with values in Base64 behind a blank, and commas between; `filename` is the image's.",
}
ROUTES: list[Endpoint] = [
    endpoint("/images", show_abilities, Right.GREET, methods=("OPTIONS",), status=204),
    endpoint("/images", list_images, Right.CREATE_JOBS, answer=ImageList, is_polled=True),
    endpoint(
        "/images",
        create_image,
        Right.CREATE_JOBS,
        methods=("POST",),
        answer=ImageEntry,
        status=201,
        request_headers=_CREATION,
        refusals=(412, 413),
    ),
    endpoint(
        "/images/$image",
        show_image,
        Right.CREATE_JOBS,
        methods=("GET",),
        answer=ImageEntry,
        is_polled=True,
        refusals=(404,),
    ),
    endpoint(
        "/images/$image",
        show_offset,
        Right.CREATE_JOBS,
        methods=("HEAD",),
        request_headers=HEADERS,
        is_polled=True,
        refusals=(404, 412),
    ),
    endpoint(
        "/images/$image",
        receive_piece,
        Right.CREATE_JOBS,
        methods=("PATCH",),
        body_type=PIECE_TYPE,
        status=204,
        request_headers=_OFFSET,
        refusals=(404, 409, 412, 460),
    ),
    endpoint(
        "/images/$image",
        remove_image,
        Right.CREATE_JOBS,
        methods=("DELETE",),
        status=204,
        request_headers=HEADERS,
        refusals=(404, 412),
    ),
]
