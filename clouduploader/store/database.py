"""A database of the home: one file of SQLite's in its directory `database`, all of the home that a service writes.

With its rollback journal, and not with a write-ahead log: a database of the home is small and seldom written,
so that readers need not go on during a write; at rest it is one file, with one mode and one owner, that
can be copied; and users can read it who may not write it, which with a WAL they would have to.

Directory and file are for their owner alone, the owner of the home: root makes entries for the daemons. A file that
lies in the home itself, where earlier versions had it, is read there, and moved by the first write.
SQLite gives its journal the same mode and owner. All writers take SQLite's write lock before they look
at anything, so they come one after the other.
"""

import contextlib
import sqlite3
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from clouduploader.errors import (
    CannotCreateError,
    ClouduploaderError,
    DataError,
    LocalIOError,
    LockedError,
    UsageError,
)
from clouduploader.util import files, privileges
from clouduploader.util.frozen import frozen

DIRECTORY = "database"  # in the home
BUSY_SECONDS = 10.0  # a write takes milliseconds; only one that hangs takes that long
MAX_USER_LENGTH = 255  # characters; `users.login` of OBS's frontend


@frozen(kw_only=True)
class Schema:
    """What is in a database.

    Attributes:
        of_what: In the plural, for messages.
        application_id: Four bytes, ours: tell the file from any other of SQLite's.
        version: Of the statements.
        statements: Make the tables in an empty file.
        upgrades: Statements that make a file of the key's version one of `version`.
    """

    of_what: str
    application_id: bytes
    version: int
    statements: Sequence[str]
    upgrades: Mapping[int, Sequence[str]]


class Database:
    """One database. Making it touches nothing; each call opens the file and closes it.

    Every method raises LocalIOError if the file can't be read or written, LockedError if another process
    writes for too long, and DataError if it is no such database, or one of a newer clouduploader.

    Args:
        path: Of the file, which need not be there; its directory lies in the home.
        schema: What is in it.
    """

    def __init__(self, path: Path, schema: Schema) -> None:
        self._new_path = path
        self._old_path = path.parent.parent / path.name
        self._schema = schema

    @property
    def path(self) -> Path:
        """The path of the file, where it is now, or would be made."""
        return self._old_path if not _is_file(self._new_path) and _is_file(self._old_path) else self._new_path

    def is_there(self) -> bool:
        """Tell whether there is a file."""
        return _is_file(self._new_path) or _is_file(self._old_path)

    def make(self) -> None:
        """Make an empty file, if there is none, that has its mode and owner from the first moment.

        SQLite takes it for a new database.

        Raises:
            CannotCreateError: It can't be made.
        """
        path = self._new_path
        with privileges.as_owner(path.parent):
            if self.is_there():
                return
            try:
                files.make_directory(path.parent, mode=files.PRIVATE_DIRECTORY_MODE)
                with contextlib.suppress(FileExistsError):  # another process was quicker: its file will do
                    files.create_file(path, b"", mode=files.PRIVATE_MODE)
            except OSError as exc:
                raise CannotCreateError(f"{path} can't be made: {exc.strerror}") from exc

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection | None]:
        """Read all of it as of one moment; None if there is nothing yet."""
        if not self.is_there():
            yield None
            return
        with self._open() as connection:
            connection.execute("BEGIN")
            is_empty = self._version(connection) == 0  # made, but its maker has not got further
            yield None if is_empty else connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Write as the only one; what is written is on disk when the block has ended, or not there at all."""
        self._move()
        with self._open() as connection:
            connection.execute("PRAGMA foreign_keys = ON")
            # syncs the directory too, once the journal is gone: with that a new file is there for good
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.execute("BEGIN IMMEDIATE")
            try:
                self._bring_forward(connection)
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def damaged(self, how: str) -> DataError:
        """Return the error for a file whose contents make no sense."""
        return DataError(f"{self.path} is damaged: {how}", hint="Put back the last good copy of it.")

    def _move(self) -> None:
        """Move a file that is in the home to its directory, with the lock that keeps all others away from it.

        Taking the lock makes SQLite bring to its end, or take back, what a crash left half written beside the file.

        Raises:
            LocalIOError: It can't be moved; it is where it was.
        """
        if _is_file(self._new_path) or not _is_file(self._old_path):
            return
        with self._open() as connection:
            connection.execute("BEGIN EXCLUSIVE")
            try:
                files.make_directory(self._new_path.parent, mode=files.PRIVATE_DIRECTORY_MODE)
                with contextlib.suppress(FileNotFoundError):  # another process has just moved it
                    self._old_path.rename(self._new_path)
                    files.sync_directory(self._new_path.parent)
                    files.sync_directory(self._old_path.parent)
            except OSError as exc:
                raise LocalIOError(
                    f"{self._old_path} can't be moved to {self._new_path}: {exc.strerror}",
                    hint="Move it as the owner of the home, or make an entry by a command there.",
                ) from exc
            finally:
                connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.ExitStack() as stack:
                path = self.path
                stack.enter_context(privileges.as_owner(path.parent))
                # rw: never made by SQLite, whose files every user may read; a file that may only be read is that
                connection = sqlite3.connect(
                    f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None
                )
                stack.enter_context(contextlib.closing(connection))
                yield connection
        except sqlite3.Error as exc:
            raise self._as_ours(exc) from exc
        except UnicodeDecodeError as exc:  # by sqlite3, from the words of an error about a damaged schema
            raise self.damaged("its schema is no text") from exc

    def _bring_forward(self, connection: sqlite3.Connection) -> None:
        schema, version = self._schema, self._version(connection)
        if version == schema.version:
            return
        for statement in schema.upgrades[version] if version else schema.statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {int.from_bytes(schema.application_id)}")
        connection.execute(f"PRAGMA user_version = {schema.version}")

    def _version(self, connection: sqlite3.Connection) -> int:
        """Return the version of what is in the file; 0 for a file in which there is nothing yet.

        Raises:
            DataError: It is none that we know.
        """
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if (application_id, version, tables) == (0, 0, 0):
            return 0
        schema = self._schema
        if application_id != int.from_bytes(schema.application_id) or version < 1:
            raise DataError(f"{self.path} is no database of {schema.of_what}")
        if version > schema.version:
            raise DataError(
                f"{self.path} was written by a newer clouduploader: its schema is {version}, "
                f"this one knows {schema.version}",
                hint="Update clouduploader.",
            )
        return int(version)

    def _as_ours(self, exc: sqlite3.Error) -> ClouduploaderError:
        match getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF:  # the rest is the detail
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return LockedError(f"another process is writing {self.path}", hint="Try again.")
            case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
                return self.damaged(str(exc))
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
                hint = "It must belong to the owner of the home."
                return LocalIOError(f"{self.path} can't be opened or written: {exc}", hint=hint)
        return LocalIOError(f"{self.path} can't be read or written: {exc}")


def _is_file(path: Path) -> bool:
    """Tell whether there is a regular file.

    Raises:
        LocalIOError: There is something else, or that can't be seen.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise LocalIOError(f"{path} can't be read: {exc.strerror}") from exc
    if not stat.S_ISREG(mode):  # root would follow a link of the home's owner
        raise LocalIOError(f"{path} is not a regular file")
    return True


def check_user(user: str) -> str:
    """Return a user's name if a database can have it.

    Raises:
        UsageError: It is empty, too long, holds what can't be shown, or looks like another one: blanks at its ends.
    """
    if not user or len(user) > MAX_USER_LENGTH or not user.isprintable() or user != user.strip():
        shown = user.encode("unicode_escape").decode()[:MAX_USER_LENGTH]
        raise UsageError(
            f"'{shown}' can't be the name of a user",
            hint=f"It must have 1 to {MAX_USER_LENGTH} characters, no control character, and no blank at its ends.",
        )
    return user
