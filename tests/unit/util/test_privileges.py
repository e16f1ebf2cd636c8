"""Rights of root; the tests run an attacker's steps first, as that user could."""

import concurrent.futures
import os
import pwd
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from clouduploader.errors import ConfigError, UsageError
from clouduploader.util import files, privileges

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")


@pytest.fixture
def theirs(tmp_path, let_all_enter):
    """A directory of another user, in one of ours."""
    directory = tmp_path / "theirs"
    directory.mkdir()
    let_all_enter(directory)
    os.chown(directory, NOBODY, NOBODY)
    return directory


@pytest.fixture
def secret(tmp_path):
    """A file of root's that nobody else can read."""
    path = tmp_path / "secret"
    path.write_text("root:SECRET")
    path.chmod(0o600)
    return path


@as_root
def test_owner_is_who_could_exchange_what_is_there(tmp_path, theirs):
    (theirs / "of-root").mkdir()
    (theirs / "link").symlink_to("/etc")
    assert privileges.owner_of(Path("/etc")) is None
    assert privileges.owner_of(tmp_path) is None
    assert privileges.owner_of(theirs) == (NOBODY, NOBODY)
    assert privileges.owner_of(theirs / "of-root") == (NOBODY, NOBODY)
    assert privileges.owner_of(theirs / "not" / "there") == (NOBODY, NOBODY)
    assert privileges.owner_of(theirs / "link") == (NOBODY, NOBODY), "root's, but he led us there"


@as_root
def test_group_of_root_is_nobodys(theirs):
    os.chown(theirs, NOBODY, 0)
    assert privileges.owner_of(theirs) == (NOBODY, NOBODY)


IN_A_NAMESPACE = """
import ctypes, os, sys
from pathlib import Path
from clouduploader.util import files, privileges
outside = int(sys.argv[1])
os.setresgid(outside, outside, outside)
os.setresuid(outside, outside, outside)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(4, 1, 0, 0, 0) == 0  # PR_SET_DUMPABLE: else /proc/self belongs to root
assert libc.unshare(0x10000000) == 0  # CLONE_NEWUSER
Path("/proc/self/setgroups").write_text("deny")
Path("/proc/self/uid_map").write_text(f"0 {outside} 1")
Path("/proc/self/gid_map").write_text(f"0 {outside} 1")
assert os.geteuid() == 0
for directory in map(Path, sys.argv[2:]):
    with privileges.as_owner(directory):
        (directory / "file").touch()
"""
"""A user with this uid makes files in these directories, as the root of a user namespace of his own."""


@as_root
def test_plain_user_in_his_namespace_works_with_his_own_rights(tmp_path, theirs, let_all_enter):
    (theirs / "inner").mkdir(mode=0o755)
    os.chown(theirs / "inner", NOBODY, NOBODY)
    others = tmp_path / "others"  # a third user's, with a directory of the first one in it
    (others / "inner").mkdir(parents=True)
    os.chown(others, 12345, 12345)
    os.chown(others / "inner", NOBODY, NOBODY)
    let_all_enter(others)
    places = [theirs, theirs / "inner", others / "inner"]
    subprocess.run([sys.executable, "-c", IN_A_NAMESPACE, str(NOBODY), *map(str, places)], check=True)
    assert {(place / "file").stat().st_uid for place in places} == {NOBODY}


@as_root
def test_root_of_a_namespace_without_the_owner_does_not_act_in_his_place(theirs):
    done = subprocess.run(
        [sys.executable, "-c", IN_A_NAMESPACE, "0", str(theirs)], stderr=subprocess.PIPE, text=True, check=False
    )
    assert "whose rights root may not take here" in done.stderr
    assert not (theirs / "file").exists()


@as_root
def test_root_makes_what_belongs_to_the_owner(theirs):
    with privileges.as_owner(theirs):
        files.replace_file(theirs / "a", b"", mode=0o600)
        files.make_directory(theirs / "b", mode=0o700)
        os.mkfifo(theirs / "c")
    owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in theirs.iterdir()}
    assert owners == dict.fromkeys("abc", (NOBODY, NOBODY))


@as_root
@pytest.mark.parametrize("act", ["open", "append", "replace", "unlink", "chmod", "chown", "tree"])
def test_root_is_led_nowhere(tmp_path, theirs, secret, act):
    """Links on every level, as the directory's owner lays them while root is at work."""
    (theirs / "file").symlink_to(secret)
    (theirs / "way").symlink_to(tmp_path)
    before = secret.stat()
    acts = {
        "open": lambda: (theirs / "way" / "secret").read_bytes(),
        "append": lambda: os.close(os.open(theirs / "file", os.O_WRONLY | os.O_APPEND)),
        "replace": lambda: files.replace_file(theirs / "way" / "secret", b"", mode=0o666),
        "unlink": lambda: (theirs / "way" / "secret").unlink(),
        "chmod": lambda: (theirs / "file").chmod(0o666),
        "chown": lambda: os.chown(theirs / "file", NOBODY, NOBODY),
        "tree": lambda: files.remove_tree(theirs / "way" / "secret"),
    }
    with pytest.raises(PermissionError), privileges.as_owner(theirs):
        acts[act]()
    assert secret.read_text() == "root:SECRET"
    assert secret.stat()[:7] == before[:7]


@as_root
def test_rights_come_back_and_are_the_threads_own(theirs, secret):
    go = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        reading = threads.submit(lambda: go.wait() and secret.read_text())
        with privileges.as_owner(theirs):
            with privileges.as_owner(theirs):
                pass
            with pytest.raises(PermissionError):
                secret.read_text()
            go.set()
            assert reading.result() == "root:SECRET"
    with pytest.raises(KeyError), privileges.as_owner(theirs):
        raise KeyError
    assert secret.read_text() == "root:SECRET"


def test_rights_in_our_own_directory_stay(tmp_path):
    with privileges.as_owner(tmp_path):
        files.replace_file(tmp_path / "a", b"", mode=0o600)
    assert (tmp_path / "a").stat().st_uid == os.geteuid()


@as_root
def test_root_runs_no_program_that_another_user_may_have_named(theirs, tmp_path):
    (theirs / "of-root").write_text("")  # in his directory, where he may exchange it
    (tmp_path / "conf").write_text("")
    privileges.check_program(tmp_path / "conf", "a program")
    with pytest.raises(ConfigError, match=r"^root does not run a program: .*/of-root may have been written by "):
        privileges.check_program(theirs / "of-root", "a program")
    os.chown(tmp_path / "conf", NOBODY, NOBODY)
    with pytest.raises(ConfigError, match="conf may have been written by the user"):
        privileges.check_program(tmp_path / "conf", "a program")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_hidden_memory_is_not_for_other_processes_of_the_user():
    code = (
        "import ctypes, os, sys; from clouduploader.util import privileges; os.setgid(65534); os.setuid(65534)\n"
        "ctypes.CDLL(None).prctl(privileges.PR_SET_DUMPABLE, 1)  # as if started by that user\n"
        "if sys.argv[1] == 'hide': privileges.hide_memory()\n"
        "print(os.stat('/proc/self/mem').st_uid, len(os.listdir('/proc/self/fd')) > 2)"
    )
    shown = [
        subprocess.run([sys.executable, "-c", code, word], capture_output=True, text=True, check=True).stdout
        for word in ("hide", "show")
    ]
    assert shown == ["0 True\n", "65534 True\n"]


def test_root_becomes_another_user_for_good_and_nobody_else_can():
    code = (
        "import os; from clouduploader import errors; from clouduploader.util import privileges\n"
        "try: privileges.become('nobody')\n"
        "except errors.NotOwnerError as exc: print(exc.message)\n"
        "else: print(os.getresuid(), os.getresgid(), 0 in os.getgroups())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    nobody = pwd.getpwnam("nobody")
    expected = f"{(nobody.pw_uid,) * 3} {(nobody.pw_gid,) * 3} False"
    assert done.stdout.strip() == (expected if os.geteuid() == 0 else "only root can work as nobody")


def test_user_who_is_not_there_is_told():
    with pytest.raises(UsageError, match="there is no user nobody-at-all"):
        privileges.become("nobody-at-all")


def test_who_is_that_user_already_needs_no_rights():
    privileges.become(pwd.getpwuid(os.geteuid()).pw_name)
