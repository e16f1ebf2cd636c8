"""The database of tokens in the home, `database/tokens.sqlite`: who may ask the server, as whom and until when.

A token is `clup_`, its id, a secret, and a checksum, all of letters and digits: the front is for programs that look for
secrets in sources, the checksum lets them tell a token from what only looks like one, and the id is what may be shown.
Only a hash is kept, of the whole token. SHA-256 will do: a slow hash is for passwords, which can be guessed, and the
secret has 190 bits of chance.

It is no part of `accounts.sqlite`: an older copy of the accounts can be put back, and brings no revoked token back to
life. When a token was last used is told by a file in the spool, `.tokens/ID`, by its time: a use is no reason to write
what says who may do what.
"""

import datetime
import enum
import hashlib
import hmac
import os
import re
import secrets
import string
import zlib
from collections.abc import Iterator
from pathlib import Path

from clouduploader.errors import LocalIOError, NoSuchTokenError, UsageError
from clouduploader.store.database import DIRECTORY, Database, Schema, check_user
from clouduploader.util import files, privileges
from clouduploader.util.frozen import frozen

FILE_NAME = f"{DIRECTORY}/tokens.sqlite"  # in the home
USES_NAME = ".tokens"  # in the spool
PREFIX = "clup_"
ID_LENGTH = 8  # characters, of 6 bits nearly: of a million tokens hardly two would share an id
SECRET_LENGTH = 32
CHECKSUM_LENGTH = 6  # of 32 bits, as the registries of such forms have it
MAX_NOTE_LENGTH = 255
USE_SECONDS = 3600  # a use is noted so often at most: no request waits for the disk for that
_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_FORM = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{ID_LENGTH}}})[0-9A-Za-z]{{{SECRET_LENGTH + CHECKSUM_LENGTH}}}")
SCHEMA = Schema(
    of_what="tokens",
    application_id=b"CUto",
    version=1,
    statements=(
        """CREATE TABLE token (
            id TEXT NOT NULL PRIMARY KEY,
            hash BLOB NOT NULL,
            user TEXT NOT NULL,
            role TEXT NOT NULL,
            note TEXT NOT NULL,
            created INTEGER NOT NULL, -- seconds since 1970, as what follows
            expires INTEGER
        ) STRICT""",
    ),
    upgrades={},
)


class Role(enum.StrEnum):
    """What the bearer of a token is to the server."""

    USER = "user"
    ADMIN = "admin"
    WORKER = "worker"
    MONITOR = "monitor"

    @property
    def is_for_programs(self) -> bool:
        """Whether no person signs in with it."""
        return self in (Role.WORKER, Role.MONITOR)


@frozen(kw_only=True)
class StoredToken:
    """What is known of a token, which it can't be made from.

    Attributes:
        id: A part of it that may be shown.
        user: Whose it is.
        role: See Role.
        note: What it is for, in its user's words.
        created: When, aware, UTC.
        expires: From when on it is worth nothing; None for never.
    """

    id: str
    user: str
    role: Role
    note: str
    created: datetime.datetime
    expires: datetime.datetime | None

    def is_expired(self, now: datetime.datetime) -> bool:
        """Tell whether it is worth nothing any more."""
        return self.expires is not None and now >= self.expires


def token_id(text: str) -> str | None:
    """Return the id of what has the form of a token and the right checksum; None for all else."""
    found = _FORM.fullmatch(text)
    if not found or not hmac.compare_digest(_checksum(text[:-CHECKSUM_LENGTH]), text[-CHECKSUM_LENGTH:]):
        return None
    return found[1]


class TokenStore:
    """The tokens of one home. Making it touches nothing; each call opens the file and closes it.

    What every method raises, see `Database`.

    Args:
        home: The home of clouduploader.
    """

    def __init__(self, home: Path) -> None:
        self._database = Database(home / FILE_NAME, SCHEMA)

    @property
    def path(self) -> Path:
        """The path of the file; it need not be there."""
        return self._database.path

    def create(
        self, user: str, role: Role, *, note: str, expires: datetime.datetime | None, now: datetime.datetime
    ) -> tuple[StoredToken, str]:
        """Make a token.

        Args:
            user: See `database.check_user`.
            role: What its bearer is.
            note: What it is for; may be empty.
            expires: When it becomes worthless, aware; None for never.
            now: When it is made, aware.

        Returns:
            What is kept of it, and the token itself, which nothing can show again.

        Raises:
            UsageError: The user or the note can't be shown, or is too long; or no calendar has the end.
            CannotCreateError: The file can't be made.
        """
        check_user(user)
        if len(note) > MAX_NOTE_LENGTH or not (note.isprintable()):
            raise UsageError(f"a note must have at most {MAX_NOTE_LENGTH} characters, none of them a control character")
        try:
            last = expires and expires.astimezone(datetime.UTC).replace(microsecond=0)
        except OverflowError:
            raise UsageError("a token can't live beyond the year 9999") from None
        front = PREFIX + "".join(secrets.choice(_DIGITS) for _ in range(ID_LENGTH + SECRET_LENGTH))
        text = front + _checksum(front)
        made = StoredToken(
            id=front[len(PREFIX) :][:ID_LENGTH],
            user=user,
            role=role,
            note=note,
            created=now.astimezone(datetime.UTC).replace(microsecond=0),
            expires=last,
        )
        ends = None if made.expires is None else int(made.expires.timestamp())
        row = (made.id, _hash(text), user, role, note, int(made.created.timestamp()), ends)
        self._database.make()
        with self._database.writing() as database:
            database.execute("INSERT INTO token VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return made, text

    def find(self, text: str, *, now: datetime.datetime) -> StoredToken | None:
        """Return what is known of a token; None if it is none, was revoked or has expired.

        Args:
            text: What a client sent, of any form.
            now: Aware.
        """
        found = self._stored(token_id(text), now)
        return found[0] if found and hmac.compare_digest(found[1], _hash(text)) else None

    def get(self, name: str, *, now: datetime.datetime) -> StoredToken | None:
        """Return what is known of a token that was shown before; None if it was revoked or has expired.

        Args:
            name: Its id.
            now: Aware.
        """
        found = self._stored(name, now)
        return found[0] if found else None

    def _stored(self, name: str | None, now: datetime.datetime) -> tuple[StoredToken, bytes] | None:
        """Return a token that is worth something, and its hash."""
        if name is None:
            return None
        with self._database.reading() as database:
            row = database.execute("SELECT * FROM token WHERE id = ?", (name,)).fetchone() if database else None
        found = None if row is None else self._token(row)
        return None if found is None or found[0].is_expired(now) else found

    def tokens(self) -> list[StoredToken]:
        """Return all tokens, those of a user together, in the order in which they were made."""
        with self._database.reading() as database:
            select = "SELECT * FROM token ORDER BY user, created, rowid"
            rows = database.execute(select).fetchall() if database else []
        return [self._token(row)[0] for row in rows]

    def remove(self, name: str) -> None:
        """Revoke a token.

        Args:
            name: Its id.

        Raises:
            NoSuchTokenError: There is none of that id.
        """
        if self._database.is_there():
            with self._database.writing() as database:
                if database.execute("DELETE FROM token WHERE id = ?", (name,)).rowcount:
                    return
        raise NoSuchTokenError(f"there is no token {name!r}", hint="`clouduploader token list` shows all.")

    def _token(self, row: tuple[str, bytes, str, str, str, int, int | None]) -> tuple[StoredToken, bytes]:
        """Return a token and its hash."""
        name, kept, user, role, note, created, expires = row
        try:
            token = StoredToken(
                id=name,
                user=user,
                role=Role(role),
                note=note,
                created=_moment(created),
                expires=None if expires is None else _moment(expires),
            )
        except (TypeError, ValueError, OverflowError, OSError):
            raise self._database.damaged(f"the token {name} has a role or a time that makes no sense") from None
        return token, kept


class TokenUses:
    """When each token was last used, about.

    Args:
        spool: Its directory.
    """

    def __init__(self, spool: Path) -> None:
        self._directory = spool / USES_NAME

    def last(self, name: str) -> datetime.datetime | None:
        """Return when a token was last used; None if that is not known.

        Args:
            name: Its id.
        """
        try:
            return _moment(int((self._directory / name).lstat().st_mtime))
        except (OSError, ValueError, OverflowError):
            return None

    def note(self, name: str, *, now: datetime.datetime) -> None:
        """Note that a token is used, unless that was done less than USE_SECONDS ago.

        Args:
            name: Its id.
            now: Aware.

        Raises:
            LocalIOError: It can't be noted.
        """
        last = self.last(name)
        if last and abs((now - last).total_seconds()) < USE_SECONDS:
            return
        path = self._directory / name
        try:
            with privileges.as_owner(self._directory.parent):
                files.make_directory(self._directory, mode=files.PRIVATE_DIRECTORY_MODE)
                files.write_file(path, b"", mode=files.PRIVATE_MODE)
                os.utime(path, (now.timestamp(), now.timestamp()), follow_symlinks=False)
        except OSError as exc:
            raise LocalIOError(f"the use of a token can't be noted in {path}: {exc.strerror}") from exc

    def forget(self, name: str) -> None:
        """Forget a token that was revoked.

        Raises:
            LocalIOError: Its file can't be removed.
        """
        try:
            with privileges.as_owner(self._directory.parent):
                (self._directory / name).unlink(missing_ok=True)
        except OSError as exc:
            raise LocalIOError(f"{self._directory / name} can't be removed: {exc.strerror}") from exc


def _moment(seconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _checksum(front: str) -> str:
    """Return the CRC-32 of a token's front in base 62."""
    number = zlib.crc32(front.encode())
    return "".join(reversed(list(_base62(number))))


def _base62(number: int) -> Iterator[str]:
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_DIGITS))
        yield _DIGITS[digit]
