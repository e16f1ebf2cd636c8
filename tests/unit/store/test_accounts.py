import contextlib
import datetime
import os
import sqlite3
import stat
import subprocess
import sys

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.errors import (
    CannotCreateError,
    ClouduploaderError,
    DataError,
    LocalIOError,
    LockedError,
    NoSuchAccountError,
    UsageError,
)
from clouduploader.store import accounts, database, home
from clouduploader.util import files

NOW = datetime.datetime(2026, 11, 22, 18, 0, tzinfo=datetime.UTC)
ARN = "arn:aws:iam::123456789012:role/obs"


@pytest.fixture
def store(tmp_path):
    """An empty store."""
    return accounts.AccountStore(tmp_path)


def create(store, user="tom", target="ec2", **values):
    return store.create(user, target, values, of_one_user=("arn", "external_id"), now=NOW)


@pytest.fixture
def path(store):
    """Where the file is to be, with its directory."""
    store.path.parent.mkdir(mode=0o700)
    return store.path


def raw(store, *statements):
    """Do something to the file that the program would not."""
    with contextlib.closing(sqlite3.connect(store.path)) as opened, opened:
        return [opened.execute(statement).fetchall() for statement in statements]


def test_account_is_given_back_as_it_was_made(store):
    made = create(store, external_id="4711")
    assert made == accounts.StoredAccount("tom", "ec2", NOW, {"external_id": "4711"}, frozenset())
    assert store.get("tom", "ec2") == {"external_id": "4711"}
    assert store.accounts() == [made]


def test_book_that_is_not_there_has_no_accounts_and_is_not_made(store):
    assert store.accounts() == []
    with pytest.raises(NoSuchAccountError, match="tom has no account for ec2"):
        store.get("tom", "ec2")
    with pytest.raises(NoSuchAccountError):
        store.remove("tom", "ec2")
    with pytest.raises(NoSuchAccountError):
        store.set("tom", "ec2", "arn", value=ARN, is_encrypted=False)
    assert not store.path.exists()


def test_accounts_are_in_order_and_can_be_those_of_a_target(store):
    for user, target in (("tom", "ec2"), ("anna", "ec2"), ("tom", "azure")):
        create(store, user, target)
    assert [(one.user, one.target) for one in store.accounts()] == [("anna", "ec2"), ("tom", "azure"), ("tom", "ec2")]
    assert [one.user for one in store.accounts(target="azure")] == ["tom"]
    assert store.accounts(target="none") == []


def test_user_has_one_account_for_a_target(store):
    create(store, external_id="1")
    with pytest.raises(CannotCreateError, match="tom has an account for ec2 already"):
        create(store, external_id="2")
    assert store.get("tom", "ec2") == {"external_id": "1"}


def test_value_takes_the_place_of_the_one_before(store):
    create(store, external_id="1")
    for value in (f"{ARN}-1", ARN, ARN):
        store.set("tom", "ec2", "arn", value=value, is_encrypted=False)
    assert store.get("tom", "ec2") == {"external_id": "1", "arn": ARN}


def test_value_that_opens_an_account_belongs_to_one_user_of_a_target(store):
    create(store, "tom", arn=ARN)
    with pytest.raises(DataError, match="this arn belongs to the account of tom already"):
        create(store, "anna", arn=ARN)
    with pytest.raises(NoSuchAccountError):
        store.get("anna", "ec2")
    create(store, "anna")
    with pytest.raises(DataError, match="this arn belongs to the account of tom already"):
        store.set("anna", "ec2", "arn", value=ARN, is_encrypted=False, is_of_one_user=True)
    create(store, "anna", "other", arn=ARN)
    assert store.get("anna", "ec2") == {}
    store.set("tom", "ec2", "arn", value=ARN, is_encrypted=False, is_of_one_user=True)


def test_value_that_opens_nothing_can_be_many_users(store):
    for user in ("tom", "anna"):
        create(store, user, "azure", tenant="t")
        store.set(user, "azure", "subscription_id", value="s", is_encrypted=False)
    assert store.get("tom", "azure") == store.get("anna", "azure") == {"tenant": "t", "subscription_id": "s"}


def test_file_of_schema_1_is_brought_forward_by_the_next_write(store):
    create(store, tenant="t")
    index = "CREATE UNIQUE INDEX entry_is_of_one_user ON entry (target, name, value) WHERE NOT is_encrypted"
    raw(store, index, "PRAGMA user_version = 1")
    assert store.get("tom", "ec2") == {"tenant": "t"}
    create(store, "anna", tenant="t")
    assert raw(store, "PRAGMA user_version", "SELECT name FROM sqlite_master WHERE type = 'index' AND sql <> ''") == [
        [(accounts.SCHEMA.version,)],
        [],
    ]


def test_encrypted_values_are_marked(store):
    create(store, "tom", "azure", tenant="t")
    store.set("tom", "azure", "application_key", value="PGP", is_encrypted=True)
    (found,) = store.accounts()
    assert found.values == {"tenant": "t", "application_key": "PGP"}
    assert found.encrypted == {"application_key"}
    store.set("tom", "azure", "application_key", value="plain", is_encrypted=False)
    assert store.accounts()[0].encrypted == frozenset()


def test_removed_account_leaves_nothing_and_can_be_made_anew(store):
    create(store, external_id="1", arn=ARN)
    create(store, "anna", external_id="2")
    store.remove("tom", "ec2")
    assert [one.user for one in store.accounts()] == ["anna"]
    assert raw(store, "SELECT value FROM entry") == [[("2",)]]
    create(store, external_id="3", arn=ARN)


@pytest.mark.parametrize("user", ["", "a\nb", "\x1b[31m", "\udcff", "x" * 256])
def test_user_that_cannot_be_shown_is_refused(store, user):
    for call in (lambda: create(store, user), lambda: store.get(user, "ec2"), lambda: store.remove(user, "ec2")):
        with pytest.raises(UsageError, match="can't be the name of a user") as caught:
            call()
        assert caught.value.message.isprintable()
    assert not store.path.exists()


@hypothesis.given(user=st.text(max_size=300), value=st.text(st.characters(exclude_categories=("Cs",))))
def test_any_user_is_kept_or_refused(tmp_path_factory, user, value):
    store = accounts.AccountStore(tmp_path_factory.mktemp("home"))
    try:
        create(store, user, value=value)
    except UsageError:
        assert not store.path.exists()
    else:
        assert store.get(user, "ec2") == {"value": value}
        assert [one.user for one in store.accounts()] == [user]


# --- the file


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
def test_file_is_for_its_owner_alone_whatever_the_umask(store, umask):
    before = os.umask(umask)
    try:
        create(store)
        store.set("tom", "ec2", "arn", value=ARN, is_encrypted=False)
    finally:
        os.umask(before)
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert [path.name for path in store.path.parent.iterdir()] == ["accounts.sqlite"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_file_that_root_makes_is_its_homes_owners(store, let_all_enter):
    let_all_enter(store.path.parent.parent)
    os.chown(store.path.parent.parent, 65534, 65533)
    create(store, external_id="1")
    assert (store.path.stat().st_uid, store.path.stat().st_gid) == (65534, 65533)
    code = (
        "import os, pathlib, sys\n"
        "from clouduploader.store import accounts\n"
        "os.setgid(65533); os.setuid(65534)\n"
        "store = accounts.AccountStore(pathlib.Path(sys.argv[1]))\n"
        "store.set('tom', 'ec2', 'arn', value='a', is_encrypted=False); print(store.get('tom', 'ec2'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, store.path.parent.parent], capture_output=True, text=True, check=True
    )
    assert done.stdout == "{'external_id': '1', 'arn': 'a'}\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not")
def test_file_that_may_not_be_read_or_written_is_named(store, let_all_enter):
    let_all_enter(store.path.parent.parent)
    create(store)
    store.path.parent.chmod(0o755)
    code = (
        "import os, pathlib, sys\n"
        "from clouduploader import errors; from clouduploader.store import accounts\n"
        "os.setuid(65534)\n"
        "store = accounts.AccountStore(pathlib.Path(sys.argv[1]))\n"
        "for call in (lambda: store.accounts(), lambda: store.remove('tom', 'ec2')):\n"
        "    try: print(call())\n"
        "    except errors.LocalIOError as exc: print(exc.message)"
    )
    command = [sys.executable, "-c", code, store.path.parent.parent]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count(f"{store.path} can't be opened or written: unable to open") == 2
    store.path.chmod(0o644)
    listed, refused = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "Account(user='tom'" in listed
    assert "can't be opened or written: attempt to write a readonly database" in refused
    store.path.parent.chmod(0o700)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{store.path} can't be read: Permission denied\n" * 2


def test_home_knows_that_the_file_is_private():
    assert accounts.FILE_NAME == home.ACCOUNTS
    assert home.FORBIDDEN[home.ACCOUNTS] == 0o777 ^ (files.PRIVATE_MODE | 0o100)


@pytest.mark.parametrize("name", ["a?mode=ro#x", "100%41 é", "\udcff"])
def test_home_may_be_called_anything(tmp_path, name):
    (tmp_path / name).mkdir()
    store = accounts.AccountStore(tmp_path / name)
    create(store, external_id="1")
    assert accounts.AccountStore(tmp_path / name).get("tom", "ec2") == {"external_id": "1"}
    assert [path.name for path in (tmp_path / name / "database").iterdir()] == ["accounts.sqlite"]


def test_home_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CannotCreateError, match=r"nowhere/database/accounts\.sqlite can't be made: No such file"):
        create(accounts.AccountStore(tmp_path / "nowhere"))


def test_link_or_directory_in_its_place_is_refused(store, path, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    other = accounts.AccountStore(tmp_path / "elsewhere")
    create(other)
    path.symlink_to(other.path)
    for call in (lambda: create(store, "anna"), lambda: store.get("tom", "ec2"), lambda: store.accounts()):
        with pytest.raises(LocalIOError, match="is not a regular file"):
            call()
    path.unlink()
    path.mkdir()
    with pytest.raises(LocalIOError, match="is not a regular file"):
        store.accounts()
    assert [one.user for one in other.accounts()] == ["tom"]


def test_file_of_a_newer_schema_is_refused_and_left_alone(store):
    create(store)
    raw(store, f"PRAGMA user_version = {accounts.SCHEMA.version + 1}", "ALTER TABLE account ADD COLUMN more TEXT")
    before = store.path.read_bytes()
    for call in (
        lambda: create(store, "anna"),
        lambda: store.get("tom", "ec2"),
        lambda: store.accounts(),
        lambda: store.remove("tom", "ec2"),
        lambda: store.set("tom", "ec2", "arn", value=ARN, is_encrypted=False),
    ):
        with pytest.raises(DataError, match="by a newer clouduploader: its schema is 3, this one knows 2") as caught:
            call()
        assert caught.value.hint == "Update clouduploader."
    assert store.path.read_bytes() == before


@pytest.mark.parametrize("statement", ["CREATE TABLE account (user)", "PRAGMA application_id = 7"])
def test_some_other_database_is_refused_and_left_alone(store, path, statement):
    raw(store, statement)
    before = path.read_bytes()
    for call in (lambda: create(store), lambda: store.accounts()):
        with pytest.raises(DataError, match="is no database of accounts"):
            call()
    assert path.read_bytes() == before


def test_damaged_file_is_named_and_left_alone(store, path):
    path.write_bytes(b"no database" * 1000)
    for call in (lambda: create(store), lambda: store.accounts()):
        with pytest.raises(DataError, match=r"accounts\.sqlite is damaged: file is not a database"):
            call()
    assert path.read_bytes() == b"no database" * 1000


def test_empty_file_of_a_maker_who_was_killed_is_an_empty_book(store, path):
    path.touch()
    assert store.accounts() == []
    create(store, external_id="1")
    assert store.get("tom", "ec2") == {"external_id": "1"}


# --- several at once


def test_writer_that_hangs_is_told_of(store, monkeypatch):
    create(store)
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert [one.user for one in store.accounts()] == ["tom"]  # who only reads is not kept waiting
        with pytest.raises(LockedError, match=r"another process is writing .*accounts\.sqlite"):
            create(store, "anna")
        other.execute("ROLLBACK")
    create(store, "anna")


WRITER = """
import datetime, pathlib, sys
from clouduploader.store import accounts
from clouduploader.errors import CannotCreateError, DataError
store, me = accounts.AccountStore(pathlib.Path(sys.argv[1])), sys.argv[2]
now = datetime.datetime.now(datetime.UTC)
sys.stdin.readline()
for number in range(8):
    try:
        store.create(f"user {number}", "ec2", {"maker": f"{me} {number}"}, now=now)
        print(number)
    except CannotCreateError:
        pass
    store.create(f"{me}'s {number}", "ec2", {"external_id": f"{me} {number}"}, now=now)
    try:
        store.set(f"{me}'s {number}", "ec2", "arn", value=f"arn {number}", is_encrypted=False, is_of_one_user=True)
        print("arn", number)
    except DataError:
        pass
"""


def test_writers_at_once_lose_nothing_and_share_nothing(store):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, store.path.parent.parent, name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name in "abc"
    ]  # fmt: skip
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    said = [line for writer in writers for line in writer.communicate(timeout=60)[0].splitlines()]
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    wanted = [str(number) for number in range(8)]
    assert sorted(line for line in said if not line.startswith("arn")) == sorted(wanted)
    assert sorted(line for line in said if line.startswith("arn")) == sorted(f"arn {number}" for number in wanted)
    assert len(store.accounts()) == 8 + 3 * 8
    assert [path.name for path in store.path.parent.iterdir()] == ["accounts.sqlite"]


KILLED = """
import datetime, os, pathlib, signal, sqlite3, sys
from clouduploader.store import accounts
store = accounts.AccountStore(pathlib.Path(sys.argv[1]))
with store._database.writing() as database:
    database.execute("PRAGMA cache_spill = 1")
    database.execute("PRAGMA cache_size = 1")
    for number in range(2000):
        database.execute("INSERT INTO account VALUES (?, 'ec2', 0)", (f"{number:0200}",))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_writer_that_was_killed_has_changed_nothing(store, let_all_enter):
    let_all_enter(store.path.parent.parent)
    if os.geteuid() == 0:
        os.chown(store.path.parent.parent, 65534, 65533)  # the daemons must be able to undo what root leaves
    create(store, external_id="1")
    done = subprocess.run([sys.executable, "-c", KILLED, store.path.parent.parent], check=False, umask=0)
    assert done.returncode == -9
    journal = store.path.with_name("accounts.sqlite-journal").stat()  # and half of it is in the file
    assert stat.S_IMODE(journal.st_mode) == 0o600
    assert (journal.st_uid, journal.st_gid) == (store.path.stat().st_uid, store.path.stat().st_gid)
    assert [one.user for one in store.accounts()] == ["tom"]
    create(store, "anna")
    assert raw(store, "PRAGMA integrity_check", "PRAGMA foreign_key_check") == [[("ok",)], []]


ODD_CONTENTS = {
    "created in no year": "UPDATE account SET created = 4611686018427387904",
    "created before all years": "UPDATE account SET created = -4611686018427387904",
    "text that is none": "UPDATE entry SET value = CAST(x'fffe' AS TEXT)",
    "no entries": "DROP TABLE entry",
    "no accounts": "DROP TABLE account",
    "other columns": "ALTER TABLE account RENAME COLUMN created TO made",
    "an objecting trigger": "CREATE TRIGGER odd BEFORE INSERT ON entry BEGIN SELECT RAISE(ABORT, 'no'); END",
}


@pytest.mark.parametrize("statement", ODD_CONTENTS.values(), ids=ODD_CONTENTS)
def test_book_with_odd_contents_gives_accounts_or_an_error_of_ours(store, statement):
    create(store, external_id="4711")
    raw(store, statement)
    said = []
    for call in (
        lambda: store.accounts(),
        lambda: store.find("tom", "ec2"),
        lambda: create(store, "ann", external_id="4712"),
        lambda: store.set("tom", "ec2", "external_id", value="4713", is_encrypted=False),
    ):
        try:
            call()
        except (DataError, LocalIOError) as exc:
            said.append(exc.message)
    assert said
    assert all(str(store.path) in message for message in said)


@hypothesis.given(st.data())
def test_any_damage_to_the_file_gives_accounts_or_an_error_of_ours(tmp_path_factory, data):
    store = accounts.AccountStore(tmp_path_factory.mktemp("home"))
    create(store, external_id="4711")
    content = bytearray(store.path.read_bytes())
    places = st.integers(0, 600) | st.integers(0, len(content) - 1)  # the schema's words are at the end of page 1
    for place in data.draw(st.lists(places | places.map(lambda n: 4095 - n), min_size=1, max_size=12)):
        content[place] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content)) | st.just(len(content))) :]
    store.path.write_bytes(content)
    for call in (lambda: store.accounts(), lambda: create(store, "ann", external_id="4712")):
        with contextlib.suppress(ClouduploaderError):
            call()


def test_schema_that_is_no_text_is_damage(store):
    create(store, external_id="4711")
    raw(store, "PRAGMA writable_schema = ON", "UPDATE sqlite_master SET name = CAST(x'fffe' AS TEXT), sql = 'odd'")
    with pytest.raises(DataError, match=r"accounts\.sqlite is damaged"):
        store.accounts()


# --- where earlier versions had it


@pytest.fixture
def earlier(store, tmp_path):
    """A file with an account, where earlier versions had it."""
    create(store, external_id="1")
    found = store.path.rename(tmp_path / "accounts.sqlite")
    (tmp_path / "database").rmdir()
    return found


def test_earlier_file_is_read_and_moved_by_the_first_write(store, earlier, tmp_path):
    inode = earlier.stat().st_ino
    assert store.get("tom", "ec2") == {"external_id": "1"}
    assert store.path == earlier
    store.set("tom", "ec2", "arn", value=ARN, is_encrypted=False)
    assert store.path == tmp_path / "database" / "accounts.sqlite"
    assert store.path.stat().st_ino == inode
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    assert [path.name for path in tmp_path.iterdir()] == ["database"]
    assert store.get("tom", "ec2") == {"external_id": "1", "arn": ARN}


def test_earlier_file_moves_with_what_a_killed_writer_left_undone(store, earlier):
    code = (
        "import os, sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "database.execute('PRAGMA cache_spill = 1'); database.execute('PRAGMA cache_size = 1')\n"
        "database.execute('BEGIN IMMEDIATE')\n"
        "database.execute('DELETE FROM account'); database.execute('DELETE FROM entry')\n"
        "for number in range(2000):\n"
        "    database.execute('INSERT INTO account VALUES (?, ?, 1)', (f'user {number}' * 9, 'ec2'))\n"
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, earlier]).returncode == -9
    assert earlier.with_name("accounts.sqlite-journal").stat().st_size > 0
    create(store, "anna")
    assert [one.user for one in store.accounts()] == ["anna", "tom"]
    assert not earlier.with_name("accounts.sqlite-journal").exists()


def test_earlier_file_waits_for_its_writer(store, earlier, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    with contextlib.closing(sqlite3.connect(earlier, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LockedError):
            create(store, "anna")
        other.execute("ROLLBACK")
    assert store.path == earlier


def test_file_that_is_in_both_places_is_the_later_one(store, earlier):
    create(store, "anna")
    earlier.write_bytes(b"a copy")
    assert [one.user for one in store.accounts()] == ["anna", "tom"]
    create(store, "eve")
    assert earlier.read_bytes() == b"a copy"


def test_earlier_file_that_cannot_be_moved_is_told_of_and_stays(store, earlier, tmp_path):
    (tmp_path / "database").symlink_to("nowhere")
    with pytest.raises(LocalIOError, match=r"can't be moved to .*File exists") as caught:
        store.remove("tom", "ec2")
    assert "owner of the home" in caught.value.hint
    assert [one.user for one in store.accounts()] == ["tom"]
