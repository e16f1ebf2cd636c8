"""Platforms: what they are, and the target data that each takes, as JSON Schema and in words for a form."""

import asyncio
from typing import Annotated, Any

from aiohttp import web
from msgspec import Meta

from clouduploader.errors import ClouduploaderError
from clouduploader.plugin import Field, fields
from clouduploader.server import replies
from clouduploader.server.access import Right
from clouduploader.server.api import documents
from clouduploader.server.api.endpoint import Endpoint, endpoint
from clouduploader.server.call import RouteCall
from clouduploader.store.config import Config
from clouduploader.uploads import registry


class FieldEntry(documents.Document):
    """A key of the target data, for a form."""

    name: str
    kind: Annotated[fields.FieldKind, Meta(description="The JSON type.")]
    description: Annotated[str, Meta(description="One sentence for people.")]
    rule: Annotated[str, Meta(description="What it takes, in words that follow its name; may be empty.")]
    required: Annotated[bool, Meta(description="Whether an upload needs it.")]
    secret: Annotated[bool, Meta(description="Whether it is never shown.")]
    account: Annotated[bool, Meta(description="Whether the user's account holds it, and no job asks for it.")]
    given: Annotated[bool, Meta(description="Whether the service itself fills it in an account.")]
    choices: Annotated[list[str], Meta(description="The only values, or, of another list, some that there are.")]
    default: Annotated[str, Meta(description="What holds without it, in a few words; may be empty.")]


class PlatformEntry(documents.Document):
    """A platform."""

    target: Annotated[str, Meta(description="What jobs call it.")]
    description: Annotated[str | None, Meta(description="What it makes of an image; null if it can't be used.")]
    problem: Annotated[str | None, Meta(description="Why it can't be used.")] = None
    accounts: Annotated[str | None, Meta(description="How the service gets into an account; null without any.")] = None
    extras: Annotated[dict[str, str] | None, Meta(description="What accounts can be asked to allow besides.")] = None
    fields: Annotated[tuple[FieldEntry, ...], Meta(description="Of the target data, in the order of a form.")] = ()
    schema: Annotated[dict[str, Any] | None, Meta(description="JSON Schema of the target data.")] = None


class PlatformList(documents.Document):
    """The platforms of the service."""

    platforms: list[PlatformEntry]


async def list_platforms(call: RouteCall) -> web.StreamResponse:
    """List the platforms, with what their target data may hold."""

    def look() -> list[PlatformEntry]:
        return [_entry(target, call.state.config) for target in registry.names()]

    return documents.answer(PlatformList(platforms=await asyncio.to_thread(look)))


def _entry(target: str, config: Config) -> PlatformEntry:
    try:
        platform = registry.load(target, config)
    except ClouduploaderError as exc:
        return PlatformEntry(target=target, description=None, problem=replies.without_directories(exc.message))
    kept, hints = platform.accounts, platform.hints
    given = set(kept.new_values()) if kept else set()

    def entry(field: Field) -> FieldEntry:
        return FieldEntry(
            name=field.name,
            kind=field.kind,
            description=field.description,
            rule=fields.allowed_in_words(field, None),
            required=field.is_required,
            secret=field.is_secret,
            account=field.is_of_account,
            given=field.name in given,
            choices=list(field.allowed or (hints.choices(field.name) if hints else ())),
            default=field.default_text,
        )

    return PlatformEntry(
        target=target,
        description=platform.description,
        accounts=kept.description if kept else None,
        extras=dict(kept.extras) if kept else None,
        fields=tuple(entry(field) for field in platform.fields),
        schema=fields.json_schema(platform.fields),
    )


ROUTES: list[Endpoint] = [endpoint("/platforms", list_platforms, Right.SEE_PLATFORMS, answer=PlatformList)]
