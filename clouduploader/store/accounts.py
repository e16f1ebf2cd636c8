"""The database of accounts in the home, `accounts.sqlite`: which user has which account in which cloud.

OBS kept this in its frontend's database, a row a user. Each entry belongs to a user and a target, and
holds some of the platform's target data: those that its fields call an account's. What is secret among
them comes in here encrypted for a key of the home, and goes out like that: reading the database
needs no private key, and the database alone opens no cloud.

SQLite with its rollback journal, and not with a write-ahead log: the database is small and seldom written,
so that readers need not go on during a write; at rest it is one file, with one mode and one owner, that
can be copied; and users can read it who may not write it, which with a WAL they would have to.

The file is for its owner alone, the owner of the home: root makes entries for the daemons.
SQLite gives its journal the same mode and owner. All writers take SQLite's write lock before they look
at anything, so they come one after the other.
"""

import contextlib
import dataclasses
import datetime
import sqlite3
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from clouduploader.errors import (
    CannotCreateError,
    ClouduploaderError,
    DataError,
    LocalIOError,
    LockedError,
    NoSuchAccountError,
    UsageError,
)
from clouduploader.util import files, privileges
from clouduploader.util.frozen import frozen

FILE_NAME = "accounts.sqlite"
SCHEMA_VERSION = 2
APPLICATION_ID = int.from_bytes(b"CUac")  # ours: tells the file from any other of SQLite's
BUSY_SECONDS = 10.0  # a write takes milliseconds; only one that hangs takes that long
MAX_USER_LENGTH = 255  # characters; `users.login` of OBS's frontend
_SCHEMA = (
    """CREATE TABLE account (
        user TEXT NOT NULL,
        target TEXT NOT NULL,
        created INTEGER NOT NULL, -- seconds since 1970
        PRIMARY KEY (user, target)
    ) STRICT""",
    """CREATE TABLE entry (
        user TEXT NOT NULL,
        target TEXT NOT NULL,
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        is_encrypted INTEGER NOT NULL,
        PRIMARY KEY (user, target, name),
        FOREIGN KEY (user, target) REFERENCES account ON DELETE CASCADE
    ) STRICT""",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_FROM_VERSION_1 = (  # which let no two accounts have any value in common
    "DROP INDEX entry_is_of_one_user",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_SELECT = """SELECT user, target, created, name, value, is_encrypted
    FROM account LEFT JOIN entry USING (user, target)"""


@frozen()
class StoredAccount:
    """What is known of a user's account.

    Attributes:
        user: The name, as OBS has it.
        target: Which platform answers for it.
        created: When, aware, UTC.
        values: Target data by the names of the platform's fields; secret ones are encrypted.
        encrypted: The names of those.
    """

    user: str
    target: str
    created: datetime.datetime
    values: Mapping[str, str]
    encrypted: frozenset[str]


class AccountStore:
    """The accounts of one home. Making it touches nothing; each call opens the file and closes it.

    Every method raises LocalIOError if the file can't be read or written, LockedError if another process
    writes for too long, and DataError if it is no database of accounts, or one of a newer clouduploader.

    Args:
        home: The home of clouduploader.

    Attributes:
        path: Of the file; it need not be there.
    """

    def __init__(self, home: Path) -> None:
        self.path = home / FILE_NAME

    def get(self, user: str, target: str) -> dict[str, str]:
        """Return a user's values for a target, to be merged into target data. Secrets stay encrypted.

        Raises:
            NoSuchAccountError: There is no such account.
        """
        return dict(self.find(user, target).values)

    def find(self, user: str, target: str) -> StoredAccount:
        """Return all that is known of an account.

        Raises:
            NoSuchAccountError: There is no such account.
        """
        found = self._select("WHERE user = ? AND target = ?", check_user(user), target)
        if not found:
            raise _no_such_account(user, target)
        return found[0]

    def accounts(self, *, target: str | None = None) -> list[StoredAccount]:
        """Return all accounts, or those for a target, in the order of their users' names."""
        return self._select("WHERE ? IN (target, '')", target or "")

    def create(
        self,
        user: str,
        target: str,
        values: Mapping[str, str],
        *,
        of_one_user: Collection[str] = (),
        now: datetime.datetime,
    ) -> StoredAccount:
        """Make an account.

        Args:
            user: See check_user.
            target: Which platform answers for it.
            values: What its platform made for it, in clear.
            of_one_user: The names of those that no other account may have.
            now: When, aware.

        Raises:
            CannotCreateError: The user has one, or the file can't be made.
            DataError: A value is another user's.
        """
        check_user(user)
        with privileges.as_owner(self.path.parent):
            if not self._is_there():
                self._make_file()
        with self._writing() as database:
            try:
                database.execute("INSERT INTO account VALUES (?, ?, ?)", (user, target, int(now.timestamp())))
            except sqlite3.IntegrityError:
                raise CannotCreateError(
                    f"{user} has an account for {target} already",
                    hint="`clouduploader account show` tells of it.",
                ) from None
            for name, value in values.items():
                if name in of_one_user:
                    _refuse_shared(database, user, target, name, value)
                _put(database, user, target, name, value=value, is_encrypted=False)
        return StoredAccount(user, target, now.replace(microsecond=0), dict(values), frozenset())

    def set(
        self, user: str, target: str, name: str, *, value: str, is_encrypted: bool, is_of_one_user: bool = False
    ) -> None:
        """Enter a value, in place of the one before it.

        Args:
            user: Whose account.
            target: For which platform.
            name: Of the platform's field.
            value: The value; for a secret field what the keyring made of it.
            is_encrypted: Whether it is that.
            is_of_one_user: Whether no other account may have it; for one in clear.

        Raises:
            NoSuchAccountError: There is no such account.
            DataError: The value is another user's.
        """
        with self._changing(user, target) as database:
            if is_of_one_user:
                _refuse_shared(database, user, target, name, value)
            _put(database, user, target, name, value=value, is_encrypted=is_encrypted)

    def remove(self, user: str, target: str) -> None:
        """Remove an account, with all that is in it.

        Raises:
            NoSuchAccountError: There is no such account.
        """
        with self._changing(user, target) as database:
            database.execute("DELETE FROM account WHERE user = ? AND target = ?", (user, target))

    @contextlib.contextmanager
    def _changing(self, user: str, target: str) -> Iterator[sqlite3.Connection]:
        """Change an account that must be there; all of it or nothing."""
        key = (check_user(user), target)
        if not self._is_there():
            raise _no_such_account(user, target)
        with self._writing() as database:
            if not database.execute("SELECT 1 FROM account WHERE user = ? AND target = ?", key).fetchone():
                raise _no_such_account(user, target)
            yield database

    def _select(self, condition: str, *parameters: str) -> list[StoredAccount]:
        if not self._is_there():
            return []
        with self._open() as database:
            database.execute("BEGIN")  # all of it as of one moment
            if _version(self.path, database) == 0:  # made, but its maker has not got further
                return []
            rows = database.execute(f"{_SELECT} {condition} ORDER BY user, target, entry.rowid", parameters).fetchall()
        found: dict[tuple[str, str], StoredAccount] = {}
        for user, target, created, name, value, is_encrypted in rows:
            try:
                at = datetime.datetime.fromtimestamp(created, datetime.UTC)
            except (TypeError, ValueError, OverflowError, OSError):
                raise self._damaged(f"an account was created at {created}") from None
            one = found.get((user, target), StoredAccount(user, target, at, {}, frozenset()))
            found[user, target] = one if name is None else _with(one, name, value, is_encrypted=bool(is_encrypted))
        return list(found.values())

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Write as the only one; what is written is on disk when the block has ended, or not there at all."""
        with self._open() as database:
            database.execute("PRAGMA foreign_keys = ON")
            # syncs the directory too, once the journal is gone: with that a new file is there for good
            database.execute("PRAGMA synchronous = EXTRA")
            database.execute("BEGIN IMMEDIATE")
            try:
                version = _version(self.path, database)
                for statement in _SCHEMA if version == 0 else _FROM_VERSION_1 if version == 1 else ():
                    database.execute(statement)
                yield database
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(privileges.as_owner(self.path.parent))
                # rw: never made by SQLite, whose files every user may read; a file that may only be read is that
                connection = sqlite3.connect(
                    f"{self.path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None
                )
                stack.enter_context(contextlib.closing(connection))
                yield connection
        except sqlite3.Error as exc:
            raise self._as_ours(exc) from exc
        except UnicodeDecodeError as exc:  # by sqlite3, from the words of an error about a damaged schema
            raise self._damaged("its schema is no text") from exc

    def _as_ours(self, exc: sqlite3.Error) -> ClouduploaderError:
        match getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF:  # the rest is the detail
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return LockedError(f"another process is writing {self.path}", hint="Try again.")
            case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
                return self._damaged(str(exc))
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
                hint = "It must belong to the owner of the home."
                return LocalIOError(f"{self.path} can't be opened or written: {exc}", hint=hint)
        return LocalIOError(f"{self.path} can't be read or written: {exc}")

    def _damaged(self, how: str) -> DataError:
        return DataError(f"{self.path} is damaged: {how}", hint="Put back the last good copy of it.")

    def _is_there(self) -> bool:
        try:
            mode = self.path.lstat().st_mode
        except FileNotFoundError:
            return False
        except OSError as exc:
            raise LocalIOError(f"{self.path} can't be read: {exc.strerror}") from exc
        if not stat.S_ISREG(mode):  # root would follow a link of the home's owner
            raise LocalIOError(f"{self.path} is not a regular file")
        return True

    def _make_file(self) -> None:
        """Make an empty file that has its mode and owner from the first moment; SQLite takes it for a new database."""
        try:
            with contextlib.suppress(FileExistsError):  # another process was quicker: its file will do
                files.create_file(self.path, b"", mode=files.PRIVATE_MODE)
        except OSError as exc:
            raise CannotCreateError(f"{self.path} can't be made: {exc.strerror}") from exc


def check_user(user: str) -> str:
    """Return a user's name if there can be an account of it.

    Raises:
        UsageError: It is empty, too long, or holds what can't be shown.
    """
    if not user or len(user) > MAX_USER_LENGTH or not user.isprintable():
        shown = user.encode("unicode_escape").decode()[:MAX_USER_LENGTH]
        raise UsageError(
            f"'{shown}' can't be the name of a user with an account",
            hint=f"It must have 1 to {MAX_USER_LENGTH} characters, none of them a control character.",
        )
    return user


def _version(path: Path, database: sqlite3.Connection) -> int:
    """Return the version of the schema; 0 for a file in which there is nothing yet.

    Raises:
        DataError: It is none that we know.
    """
    (application_id,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (application_id, version, tables) == (0, 0, 0):
        return 0
    if application_id != APPLICATION_ID or version < 1:
        raise DataError(f"{path} is no database of accounts")
    if version > SCHEMA_VERSION:
        raise DataError(
            f"{path} was written by a newer clouduploader: its schema is {version}, this one knows {SCHEMA_VERSION}",
            hint="Update clouduploader.",
        )
    return int(version)


def _put(database: sqlite3.Connection, user: str, target: str, name: str, *, value: str, is_encrypted: bool) -> None:
    database.execute(
        """INSERT INTO entry VALUES (?, ?, ?, ?, ?) ON CONFLICT (user, target, name)
        DO UPDATE SET value = excluded.value, is_encrypted = excluded.is_encrypted""",
        (user, target, name, value, is_encrypted),
    )


def _refuse_shared(database: sqlite3.Connection, user: str, target: str, name: str, value: str) -> None:
    """Make sure that no other account has a value; the caller has the write lock.

    Raises:
        DataError: One has it.
    """
    other = database.execute(
        "SELECT user FROM entry WHERE (target, name, value) = (?, ?, ?) AND user <> ? AND NOT is_encrypted",
        (target, name, value, user),
    ).fetchone()
    if other:
        raise DataError(f"this {name} belongs to the account of {other[0]} already")


def _with(account: StoredAccount, name: str, value: str, *, is_encrypted: bool) -> StoredAccount:
    encrypted = account.encrypted | {name} if is_encrypted else account.encrypted
    return dataclasses.replace(account, values={**account.values, name: value}, encrypted=encrypted)


def _no_such_account(user: str, target: str) -> NoSuchAccountError:
    return NoSuchAccountError(
        f"{user} has no account for {target}",
        hint=f"`clouduploader account create --target {target}` makes one, `clouduploader account list` shows all.",
    )
