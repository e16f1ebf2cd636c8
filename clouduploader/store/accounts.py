"""The database of accounts in the home, `database/accounts.sqlite`: which user has which account in which cloud.

OBS kept this in its frontend's database, a row a user. Each entry belongs to a user and a target, and
holds some of the platform's target data: those that its fields call an account's. What is secret among
them comes in here encrypted for a key of the home, and goes out like that: reading the database
needs no private key, and the database alone opens no cloud.
"""

import contextlib
import dataclasses
import datetime
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from clouduploader.errors import CannotCreateError, NoSuchAccountError, TakenValueError
from clouduploader.store.database import DIRECTORY, Database, Schema, check_user
from clouduploader.util.frozen import frozen

FILE_NAME = f"{DIRECTORY}/accounts.sqlite"  # in the home
SCHEMA = Schema(
    of_what="accounts",
    application_id=b"CUac",
    version=2,
    statements=(
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
    ),
    upgrades={1: ("DROP INDEX entry_is_of_one_user",)},  # which let no two accounts have any value in common
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
            TakenValueError: A value is another user's.
        """
        check_user(user)
        self._database.make()
        with self._database.writing() as database:
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
            TakenValueError: The value is another user's.
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
        if not self._database.is_there():
            raise _no_such_account(user, target)
        with self._database.writing() as database:
            if not database.execute("SELECT 1 FROM account WHERE user = ? AND target = ?", key).fetchone():
                raise _no_such_account(user, target)
            yield database

    def _select(self, condition: str, *parameters: str) -> list[StoredAccount]:
        with self._database.reading() as database:
            if database is None:
                return []
            rows = database.execute(f"{_SELECT} {condition} ORDER BY user, target, entry.rowid", parameters).fetchall()
        found: dict[tuple[str, str], StoredAccount] = {}
        for user, target, created, name, value, is_encrypted in rows:
            try:
                at = datetime.datetime.fromtimestamp(created, datetime.UTC)
            except (TypeError, ValueError, OverflowError, OSError):
                raise self._database.damaged(f"an account was created at {created}") from None
            one = found.get((user, target), StoredAccount(user, target, at, {}, frozenset()))
            found[user, target] = one if name is None else _with(one, name, value, is_encrypted=bool(is_encrypted))
        return list(found.values())


def _put(database: sqlite3.Connection, user: str, target: str, name: str, *, value: str, is_encrypted: bool) -> None:
    database.execute(
        """INSERT INTO entry VALUES (?, ?, ?, ?, ?) ON CONFLICT (user, target, name)
        DO UPDATE SET value = excluded.value, is_encrypted = excluded.is_encrypted""",
        (user, target, name, value, is_encrypted),
    )


def _refuse_shared(database: sqlite3.Connection, user: str, target: str, name: str, value: str) -> None:
    """Make sure that no other account has a value; the caller has the write lock.

    Raises:
        TakenValueError: One has it.
    """
    other = database.execute(
        "SELECT user FROM entry WHERE (target, name, value) = (?, ?, ?) AND user <> ? AND NOT is_encrypted",
        (target, name, value, user),
    ).fetchone()
    if other:
        raise TakenValueError(f"this {name} belongs to the account of {other[0]} already")


def _with(account: StoredAccount, name: str, value: str, *, is_encrypted: bool) -> StoredAccount:
    encrypted = account.encrypted | {name} if is_encrypted else account.encrypted
    return dataclasses.replace(account, values={**account.values, name: value}, encrypted=encrypted)


def _no_such_account(user: str, target: str) -> NoSuchAccountError:
    return NoSuchAccountError(
        f"{user} has no account for {target}",
        hint=f"`clouduploader account create --target {target}` makes one, `clouduploader account list` shows all.",
    )
