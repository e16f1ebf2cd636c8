"""Tokens: users keep their own, administrators all. A token is shown once, when it is made."""

import asyncio
import datetime
from typing import Annotated

from aiohttp import web
from msgspec import Meta

from clouduploader.admin import tokens as admin_tokens
from clouduploader.errors import NoSuchTokenError
from clouduploader.server.access import Right
from clouduploader.server.api import documents
from clouduploader.server.api.endpoint import ROOT, Endpoint, endpoint
from clouduploader.server.call import RouteCall
from clouduploader.server.replies import RefusalError
from clouduploader.store.tokens import MAX_NOTE_LENGTH, Role, StoredToken, TokenStore

MAX_TOKENS = 100  # of a user, by the API


class TokenEntry(documents.Document):
    """A token, without what it could be made from."""

    id: str
    user: str
    role: Role
    note: Annotated[str, Meta(description="What it is for.")]
    created: documents.Time
    expires: Annotated[documents.Time | None, Meta(description="From when on it is worth nothing.")]
    used: Annotated[documents.Time | None, Meta(description="When it was last used, to the hour.")] = None
    token: Annotated[str | None, Meta(description="The token itself, when it was just made.")] = None


class TokenList(documents.Document):
    """Tokens."""

    tokens: list[TokenEntry]


class TokenFilter(documents.Given):
    """Which tokens are wanted."""

    user: Annotated[documents.Text, Meta(description="Of this user.")] = ""


class NewToken(documents.Given):
    """A token that is to be made."""

    note: Annotated[str, Meta(max_length=MAX_NOTE_LENGTH, description="What it is for.")] = ""
    expires: Annotated[
        documents.Time | None,
        Meta(description="From when on it is worth nothing; with the token that makes it, if that ends earlier."),
    ] = None
    user: Annotated[documents.Text, Meta(description="The user; the own one unless given.")] = ""
    role: Annotated[Role, Meta(description="An administrator alone makes others than those of users.")] = Role.USER


async def list_tokens(call: RouteCall) -> web.StreamResponse:
    """List tokens."""
    given = documents.query(call, TokenFilter)
    found = await asyncio.to_thread(admin_tokens.list_tokens, call.state.config, call.owner)
    return documents.answer(
        TokenList([_entry(one.token, used=one.used) for one in found if given.user in ("", one.token.user)])
    )


async def create_token(call: RouteCall) -> web.StreamResponse:
    """Make a token, and show it: nothing can show it again."""
    given = await documents.read(call, NewToken)
    user = given.user or call.principal.user or ""
    if call.owner is not None and (user != call.owner or given.role is not Role.USER):
        raise RefusalError("a user makes tokens of the own role and name only", status=403)
    config, maker = call.state.config, call.principal.token

    def make() -> tuple[StoredToken, str]:
        now = datetime.datetime.now(datetime.UTC)
        if given.expires is not None and given.expires <= now:
            raise RefusalError("a token can't live for no time", status=422)
        own = TokenStore(config.home.value).get(maker, now=now) if maker else None
        if maker and own is None:  # while the body came; what it makes would outlive it
            raise RefusalError("the token was revoked or has expired", status=401)
        ends = [moment for moment in (given.expires, own and own.expires) if moment]
        if call.owner is not None and len(admin_tokens.list_tokens(config, user)) >= MAX_TOKENS:
            raise RefusalError(f"{user} has {MAX_TOKENS} tokens", status=409)
        return TokenStore(config.home.value).create(
            user, given.role, note=given.note, expires=min(ends, default=None), now=now
        )

    made, text = await asyncio.to_thread(make)
    call.state.log.tell("token_created", user=made.user, role=made.role, made=made.id, by=call.principal.user)
    return documents.answer(_entry(made, token_text=text), status=201, location=f"{ROOT}/tokens/{made.id}")


async def revoke_token(call: RouteCall) -> web.StreamResponse:
    """Revoke a token: it is not taken from the next request on."""
    name, config = call.found.parts["name"], call.state.config

    def revoke() -> None:
        if not any(one.token.id == name for one in admin_tokens.list_tokens(config, call.owner)):
            raise _missing()
        try:
            admin_tokens.revoke(config, [name])
        except NoSuchTokenError as exc:  # by another request
            raise _missing() from exc

    await asyncio.to_thread(revoke)
    call.state.log.tell("token_revoked", made=name, by=call.principal.user)
    return documents.nothing()


def _missing() -> RefusalError:
    return RefusalError("there is no such token", status=404)


def _entry(token: StoredToken, *, used: datetime.datetime | None = None, token_text: str | None = None) -> TokenEntry:
    return TokenEntry(
        id=token.id,
        user=token.user,
        role=token.role,
        note=token.note,
        created=token.created,
        expires=token.expires,
        used=used,
        token=token_text,
    )


ROUTES: list[Endpoint] = [
    endpoint("/tokens", list_tokens, Right.KEEP_TOKENS, query=TokenFilter, answer=TokenList),
    endpoint(
        "/tokens",
        create_token,
        Right.KEEP_TOKENS,
        methods=("POST",),
        body=NewToken,
        answer=TokenEntry,
        status=201,
        refusals=(409,),
    ),
    endpoint("/tokens/$name", revoke_token, Right.KEEP_TOKENS, methods=("DELETE",), status=204, refusals=(404,)),
]
