"""Who asks, and who may do what: all of it is decided here, by one table.

A request without a token comes from the *backend*, OBS's daemons and all else that the administrator trusts, if its
address is in a network of `allow`; else from a *stranger*, as where a proxy does not tell the address. A token makes it
one of a *user*, an *admin*, a *worker*, which is an upload host, or a *monitor*, wherever it comes from; a request with
a wrong one is refused, also where it would have been the backend's without. So does the cookie of a session on the
page; with that of a session that is over the request is a stranger's. Over the Unix socket the kernel tells who asks:
root and the user of the service are admins, the members of a group users.
"""

import asyncio
import collections
import contextlib
import datetime
import enum
import time
from collections.abc import Iterator, Mapping

from aiohttp import web

from clouduploader.errors import ClouduploaderError
from clouduploader.server.network import connections, unix_socket
from clouduploader.server.network.origin import ORIGIN
from clouduploader.server.replies import RefusalError
from clouduploader.server.settings import SettingsSource
from clouduploader.server.signin import sessions
from clouduploader.server.signin.sessions import Session, Sessions
from clouduploader.store.config import Config
from clouduploader.store.tokens import Role, StoredToken, TokenStore, TokenUses, token_id
from clouduploader.util.frozen import frozen
from clouduploader.util.service_log import ServiceLog

SCHEME = "bearer"  # RFC 6750; of no other one is taken notice, as OBS does
CHALLENGE = 'Bearer realm="clouduploader"'
FIRST_DELAY_SECONDS = 0.25
LAST_DELAY_SECONDS = 8.0
FORGET_SECONDS = 60.0  # after so much time without a wrong token a client is as good as new
MAX_CLIENTS = 10_000  # that wrong tokens are counted of; a KiB each


class Kind(enum.StrEnum):
    """Kinds of principals."""

    BACKEND = "backend"
    USER = "user"
    ADMIN = "admin"
    WORKER = "worker"
    MONITOR = "monitor"
    STRANGER = "stranger"


class Right(enum.StrEnum):
    """What a route needs; the words are shown to who has not got it."""

    GREET = "see the greeting, the description, the public key, and whether all is well"
    SIGN_IN = "sign in"
    SIGN_OUT = "sign out"
    SEE_WORKER = "see whether a worker runs"
    MONITOR = "see metrics, and what is not well"
    SEE_REQUESTS = "see which requests are being answered"
    SEE_JOBS = "see jobs and logs"
    CREATE_JOBS = "make jobs"
    CHANGE_JOBS = "send images, kill jobs and try them again"
    SEE_PLATFORMS = "see the platforms and what they take"
    KEEP_ACCOUNTS = "see and change accounts in the clouds"
    KEEP_TOKENS = "see, make and revoke tokens"
    SEE_SERVICE = "see how the service is, and its users"
    WORK = "take jobs as an upload host"


class Reach(enum.StrEnum):
    """How far a right reaches."""

    ALL = "all"
    OWN = "own"  # what belongs to the principal


TABLE: Mapping[Right, Mapping[Kind, Reach]] = {
    Right.GREET: dict.fromkeys(Kind, Reach.ALL),
    Right.SIGN_IN: dict.fromkeys(Kind, Reach.ALL),
    Right.SIGN_OUT: dict.fromkeys(Kind, Reach.ALL),
    Right.SEE_WORKER: dict.fromkeys((Kind.BACKEND, Kind.USER, Kind.ADMIN, Kind.WORKER, Kind.MONITOR), Reach.ALL),
    Right.MONITOR: dict.fromkeys((Kind.BACKEND, Kind.ADMIN, Kind.MONITOR), Reach.ALL),
    Right.SEE_REQUESTS: dict.fromkeys((Kind.BACKEND, Kind.ADMIN), Reach.ALL),
    Right.SEE_JOBS: {Kind.BACKEND: Reach.ALL, Kind.ADMIN: Reach.ALL, Kind.USER: Reach.OWN},
    Right.CREATE_JOBS: {Kind.BACKEND: Reach.ALL, Kind.ADMIN: Reach.ALL, Kind.USER: Reach.OWN},
    Right.CHANGE_JOBS: {Kind.BACKEND: Reach.ALL, Kind.ADMIN: Reach.ALL, Kind.USER: Reach.OWN},
    Right.SEE_PLATFORMS: dict.fromkeys((Kind.BACKEND, Kind.USER, Kind.ADMIN), Reach.ALL),
    Right.KEEP_ACCOUNTS: {Kind.ADMIN: Reach.ALL, Kind.USER: Reach.OWN},
    Right.KEEP_TOKENS: {Kind.ADMIN: Reach.ALL, Kind.USER: Reach.OWN},
    Right.SEE_SERVICE: {Kind.ADMIN: Reach.ALL},
    Right.WORK: {Kind.WORKER: Reach.ALL},
}
"""Who has which right; a kind that is not named has not."""
_KINDS = {role: Kind(role.value) for role in Role}


@frozen()
class Principal:
    """Who asks.

    Attributes:
        kind: See Kind.
        user: The user of the token, or the login; None without one.
        token: The id of the token, also of one that is not taken; None without one.
        session: On the page; None without one.
    """

    kind: Kind
    user: str | None = None
    token: str | None = None
    session: Session | None = None


PRINCIPAL = web.RequestKey("principal", Principal)


def has(principal: Principal, right: Right) -> bool:
    """Return whether a principal has a right, however far it reaches."""
    return principal.kind in TABLE[right]


def reach(principal: Principal, right: Right) -> Reach:
    """Return how far a right of a principal reaches.

    Raises:
        RefusalError: The principal has not got it.
    """
    found = TABLE[right].get(principal.kind)
    if found is not None:
        return found
    if principal.kind is Kind.STRANGER:
        raise RefusalError("a token is needed", status=401, is_coded=True, headers={"WWW-Authenticate": CHALLENGE})
    who = principal.user or "a client without a token"
    raise RefusalError(f"access denied for {who}: not allowed to {right}", status=403, is_coded=True)


class WrongTokens:
    """Makes clients wait that come with wrong tokens, longer each time.

    A right one is never kept waiting: no client can lock out another one behind the same address, and none can guess
    190 bits.
    """

    def __init__(self) -> None:
        self._counts: collections.OrderedDict[str, tuple[int, float]] = collections.OrderedDict()

    def delay(self, client: str, now: float) -> float:
        """Count a wrong token, and return how many seconds its answer is to wait.

        Args:
            client: See `origin.client_of`.
            now: By a monotonic clock, in s.
        """
        count, last = self._counts.pop(client, (0, now))
        if now - last >= FORGET_SECONDS:
            count = 0
        self._counts[client] = (count + 1, now)
        if len(self._counts) > MAX_CLIENTS:
            self._counts.popitem(last=False)
        return min(LAST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(count, 16))


class Gate:
    """Tells who asks.

    Args:
        config: Home and spool.
        source: The settings of the server.
        log: Gets what can't be read or noted.
    """

    def __init__(self, config: Config, source: SettingsSource, log: ServiceLog) -> None:
        self._tokens = TokenStore(config.home.value)
        self._uses = TokenUses(config.spool.value)
        self._source = source
        self._log = log
        self._wrong = WrongTokens()
        self.sessions = Sessions(config.spool.value)

    async def identify(self, request: web.BaseRequest) -> Principal:
        """Return who sends a request.

        Raises:
            RefusalError: By a client of no network that may connect; by a token that is wrong, or that others could
                read on its way.
        """
        origin, settings = request[ORIGIN], self._source.current
        if origin.is_forwarded and origin.address and not settings.is_client(origin.address):
            raise RefusalError(f"access denied for {origin.address}", status=403, is_coded=True)
        text = _bearer(request)
        if text is not None:
            request[PRINCIPAL] = Principal(Kind.STRANGER, token=token_id(text))
            token = await self.check_token(request, text)
            return Principal(_KINDS[token.role], token.user, token.id)
        cookie = request.cookies.get(sessions.cookie_name(request))
        if cookie is not None and settings.sign_in.ways:
            session = await asyncio.to_thread(self._session, cookie) if self.is_private(request) else None
            if session is None:
                return Principal(Kind.STRANGER)
            return Principal(_KINDS[session.role], session.user, session.token, session)
        if origin.uid is not None:
            return await asyncio.to_thread(_local, origin.uid, settings.socket_gid)
        is_backend = origin.address is not None and settings.is_allowed(origin.address)
        return Principal(Kind.BACKEND if is_backend else Kind.STRANGER)

    def is_private(self, request: web.BaseRequest) -> bool:
        """Return whether secrets are taken in a request: no other machine can read it, or the settings allow it."""
        return request[ORIGIN].is_private or self._source.current.clear_tokens

    async def check_token(self, request: web.BaseRequest, text: str) -> StoredToken:
        """Return what is known of a token that a request has.

        Raises:
            RefusalError: It is wrong, or others could read it on its way.
        """
        if not self.is_private(request):
            raise RefusalError(
                "tokens are not taken over http: others could read this one on its way, so that it is to be revoked",
                status=403,
                is_coded=True,
            )
        token = await asyncio.to_thread(self._find, text)
        if token is None:
            client = connections.connection_of(request).client
            await asyncio.sleep(self._wrong.delay(client, time.monotonic()))
            challenge = f'{CHALLENGE}, error="invalid_token"'
            raise RefusalError(
                "the token is wrong, was revoked or has expired",
                status=401,
                is_coded=True,
                headers={"WWW-Authenticate": challenge},
            )
        is_proven = request[ORIGIN].has_certificate or not self._source.current.tls_client_ca
        if token.role.is_for_programs and not is_proven:
            raise RefusalError(f"a {token.role}'s token needs a client certificate", status=403, is_coded=True)
        return token

    async def has_ended(self, principal: Principal) -> bool:
        """Return whether a sender's token was revoked meanwhile, or has expired, or the session is over.

        Raises:
            RefusalError: The tokens can't be read.
        """
        settings = self._source.current.sign_in

        def look() -> bool:
            now = datetime.datetime.now(datetime.UTC)
            with self._reading():
                is_worthless = principal.token is not None and self._tokens.get(principal.token, now=now) is None
            session = principal.session
            return is_worthless or (session is not None and self.sessions.is_over(session, settings))

        return await asyncio.to_thread(look)

    def _find(self, text: str) -> StoredToken | None:
        """In a thread: look a token up, and note its use."""
        now = datetime.datetime.now(datetime.UTC)
        with self._reading():
            token = self._tokens.find(text, now=now)
        if token is not None:
            self._note(token, now)
        return token

    def _session(self, cookie: str) -> Session | None:
        """In a thread: return the session of a cookie; None if it is over, as that of a revoked token is."""
        with self._reading():
            session = self.sessions.find(cookie, self._source.current.sign_in)
            if session is None or session.token is None:
                return session
            now = datetime.datetime.now(datetime.UTC)
            token = self._tokens.get(session.token, now=now)
        if token is None:
            return None
        self._note(token, now)
        return session

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except ClouduploaderError as exc:
            self._log.tell("trouble", text=exc.message)
            raise RefusalError("the tokens can't be read", status=500) from exc

    def _note(self, token: StoredToken, now: datetime.datetime) -> None:
        try:
            self._uses.note(token.id, now=now)
        except ClouduploaderError as exc:
            self._log.tell("trouble", text=exc.message)


def _local(uid: int, gid: int | None) -> Principal:
    """In a thread: return who a user of this host is, over the Unix socket.

    Args:
        uid: The user.
        gid: The group whose members are users; None for none.
    """
    login = unix_socket.login(uid)
    if unix_socket.is_own(uid):
        return Principal(Kind.ADMIN, login)
    if login and gid is not None and unix_socket.is_member(uid, gid):
        return Principal(Kind.USER, login)
    return Principal(Kind.STRANGER)


def _bearer(request: web.BaseRequest) -> str | None:
    """Return the token of a request; None without one. Of several all are wrong."""
    found = [value.partition(" ") for value in request.headers.getall("Authorization", ())]
    texts = [text.strip() for scheme, _, text in found if scheme.lower() == SCHEME]
    return " ".join(texts) if texts else None
