"""Sessions of users on the page, in signed cookies.

The cookie says who signed in, how and when; the server keeps only its key, and which sessions were ended by their
users, in the spool: `.sessions/key` and `.sessions/ID`. A restart ends no session; removing the key and restarting
ends all.
"""

import dataclasses
import hmac
import secrets
import time
from pathlib import Path

from aiohttp import web

from clouduploader.server.replies import RefusalError
from clouduploader.server.signin.seal import DIRECTORY_NAME, Seal
from clouduploader.server.signin.settings import LONGEST_SECONDS, SignInSettings, Way
from clouduploader.store.tokens import Role
from clouduploader.util import files, privileges
from clouduploader.util.frozen import frozen

COOKIE = "clouduploader"
PURPOSE = "session"
CSRF_HEADER = "X-CSRF-Token"
RENEW_SECONDS = 60  # a use is written into the cookie so often at most
ID_BYTES = 16


@frozen(kw_only=True)
class Session:
    """A session.

    Attributes:
        id: Random, in 22 letters, digits, `-` and `_`.
        user: Who signed in.
        role: What the user is.
        way: How the user signed in.
        token: The id of the token that was used, with which the session ends; None for other ways.
        began: When, in seconds since the epoch.
        used: When it was used last.
    """

    id: str
    user: str
    role: Role
    way: Way
    token: str | None
    began: int
    used: int


class Sessions:
    """Begins, finds and ends sessions.

    Args:
        spool: Its directory.

    Attributes:
        seal: Signs cookies.
    """

    def __init__(self, spool: Path) -> None:
        self._directory = spool / DIRECTORY_NAME
        self.seal = Seal(spool)

    def begin(self, user: str, role: Role, way: Way, *, token: str | None = None) -> Session:
        """Return a new session."""
        now = int(time.time())
        name = secrets.token_urlsafe(ID_BYTES)
        return Session(id=name, user=user, role=role, way=way, token=token, began=now, used=now)

    def write(self, session: Session) -> str:
        """Return the content of a session's cookie."""
        return self.seal.sign(
            PURPOSE,
            {"jti": session.id, "sub": session.user, "role": session.role, "way": session.way, "token": session.token,
             "began": session.began, "used": session.used},
        )  # fmt: skip

    def find(self, text: str, settings: SignInSettings) -> Session | None:
        """In a thread: return the session of a cookie; None if it was signed by another key, or has ended."""
        found = self.seal.read(PURPOSE, text)
        if found is None:
            return None
        session = Session(
            id=found["jti"],
            user=found["sub"],
            role=Role(found["role"]),
            way=Way(found["way"]),
            token=found["token"],
            began=found["began"],
            used=found["used"],
        )
        return None if self.is_over(session, settings) else session

    def is_over(self, session: Session, settings: SignInSettings) -> bool:
        """In a thread: return whether a session has ended, by its user, after its time, or by the settings."""
        now = time.time()
        return (
            now - session.began >= settings.session_max_seconds
            or now - session.used >= settings.session_idle_seconds
            or session.way not in settings.ways
            or (self._directory / session.id).exists()
        )

    def renewed(self, session: Session) -> Session | None:
        """Return a session that is used now; None if that was written into its cookie a moment ago."""
        now = int(time.time())
        return dataclasses.replace(session, used=now) if now - session.used >= RENEW_SECONDS else None

    def end(self, session: Session) -> None:
        """In a thread: end a session for good, and forget which ones were ended so long ago that they are over anyhow.

        Raises:
            RefusalError: That can't be written.
        """
        path = self._directory / session.id
        try:
            with privileges.as_owner(self._directory.parent):
                files.write_file(path, b"", mode=files.PRIVATE_MODE)
                files.sync_directory(self._directory)
                for other in self._directory.iterdir():
                    if len(other.name) == len(session.id) and time.time() - other.stat().st_mtime > LONGEST_SECONDS:
                        other.unlink(missing_ok=True)
        except OSError as exc:
            raise RefusalError(f"the end of a session can't be noted: {exc.strerror}", status=500) from exc

    def csrf_token(self, session: Session) -> str:
        """Return what requests of this session that change something must have in CSRF_HEADER."""
        return self.seal.derive("csrf", session.id)

    def has_csrf_token(self, request: web.BaseRequest, session: Session) -> bool:
        """Return whether a request comes from a page that was told the token: not from a foreign one."""
        given = request.headers.get(CSRF_HEADER, "")
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self.csrf_token(session).encode())


def cookie_name(request: web.BaseRequest, base: str = COOKIE) -> str:
    """Return the name of a cookie. By TLS its prefix keeps other hosts of the domain from setting it (RFC 6265bis)."""
    return f"__Host-{base}" if request.secure else base


def set_cookie(
    request: web.BaseRequest, answer: web.StreamResponse, text: str, *, base: str = COOKIE, seconds: int | None = None
) -> None:
    """Set a cookie that no script reads, and that comes with no request of a foreign page but a link."""
    answer.set_cookie(
        cookie_name(request, base), text, path="/", max_age=seconds, secure=request.secure, httponly=True,
        samesite="Lax",
    )  # fmt: skip


def remove_cookie(request: web.BaseRequest, answer: web.StreamResponse, *, base: str = COOKIE) -> None:
    """Have the browser forget a cookie."""
    name = cookie_name(request, base)
    answer.del_cookie(name, path="/", secure=request.secure, httponly=True, samesite="Lax")
