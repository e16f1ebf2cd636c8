"""Who asks, and what that principal may do."""

from typing import Annotated

from aiohttp import web
from msgspec import Meta

from clouduploader.server import access
from clouduploader.server.access import Kind, Reach, Right
from clouduploader.server.api import documents
from clouduploader.server.api.endpoint import Endpoint, endpoint
from clouduploader.server.call import RouteCall


class RightEntry(documents.Document):
    """A right of the one who asks."""

    code: Annotated[str, Meta(description="Its name for programs.")]
    words: Annotated[str, Meta(description="What it lets do, for people.")]
    reach: Annotated[Reach, Meta(description="Whether it reaches all there is, or what is one's own.")]


class Me(documents.Document):
    """Who asks."""

    kind: Annotated[Kind, Meta(description="What the one who asks is to the server.")]
    user: Annotated[str | None, Meta(description="Whose token it is; null without one.")]
    rights: Annotated[list[RightEntry], Meta(description="What is allowed.")]


async def show_me(call: RouteCall) -> web.StreamResponse:
    """Tell who asks, and what the asking one may do."""
    principal = call.principal
    rights = [
        RightEntry(code=right.name.lower(), words=str(right), reach=access.reach(principal, right))
        for right in Right
        if access.has(principal, right)
    ]
    return documents.answer(Me(kind=principal.kind, user=principal.user, rights=rights))


ROUTES: list[Endpoint] = [endpoint("/me", show_me, Right.GREET, answer=Me, is_polled=True)]
