"""Manage tokens: make, list and revoke them."""

import datetime
from collections.abc import Sequence

from clouduploader.errors import UsageError
from clouduploader.store.config import Config
from clouduploader.store.tokens import Role, StoredToken, TokenStore, TokenUses
from clouduploader.util.frozen import frozen


@frozen()
class ListedToken:
    """A token of the list.

    Attributes:
        token: See StoredToken.
        used: When it was last used, about; None if that is not known.
    """

    token: StoredToken
    used: datetime.datetime | None


def create(
    config: Config, user: str, role: Role, *, note: str, lifetime: datetime.timedelta | None
) -> tuple[StoredToken, str]:
    """Make a token for a user.

    Raises:
        UsageError: It would live for no time, or for longer than the calendar has.
        ClouduploaderError: See `TokenStore.create`.
    """
    now = datetime.datetime.now(datetime.UTC)
    try:
        expires = None if lifetime is None else now + lifetime
    except OverflowError:
        raise UsageError("a token can't live for so long") from None
    if expires == now:
        raise UsageError("a token can't live for no time")
    return TokenStore(config.home.value).create(user, role, note=note, expires=expires, now=now)


def list_tokens(config: Config, user: str | None) -> list[ListedToken]:
    """List all tokens, or those of a user."""
    uses = TokenUses(config.spool.value)
    found = TokenStore(config.home.value).tokens()
    return [ListedToken(token, uses.last(token.id)) for token in found if user in (None, token.user)]


def revoke(config: Config, names: Sequence[str]) -> None:
    """Revoke tokens by their ids; none that is named behind one that there is not.

    Raises:
        NoSuchTokenError: There is none of such an id.
    """
    store, uses = TokenStore(config.home.value), TokenUses(config.spool.value)
    for name in names:
        store.remove(name)
        uses.forget(name)
