import logging
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from fakes.waiting import wait_for
from samples.keys import SECRET

from clouduploader.errors import (
    CannotCreateError,
    LocalIOError,
    MissingFileError,
    MissingProgramError,
    TargetDataError,
    TransientError,
)
from clouduploader.store.keyring import Keyring
from clouduploader.store.keyring import gpg as gpg_module
from clouduploader.store.keyring.gpg import MAX_PLAIN_BYTES
from clouduploader.util import deadline

GPG = shutil.which("gpg")


def add_key(gpg_keys, scratch, *options):
    """Make a key pair as a person would, by gpg itself."""
    short = scratch / "h"  # the path of the home is too long for the sockets
    short.symlink_to(gpg_keys.path)
    (gpg_keys.path / "gpg-agent.conf").write_text("s2k-count 65536\n")  # else it takes seconds to find one
    command = [GPG, "--homedir", short, "--batch", "--pinentry-mode", "loopback", *options]
    command += ["--quick-gen-key", "person", "future-default", "default"]
    subprocess.run(command, capture_output=True, check=True)
    subprocess.run(["gpgconf", "--homedir", short, "--kill", "gpg-agent"], check=True)


def agents():
    """The command lines of all agents that live."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if b"gpg-agent" in words.split(b"\0")[0]:
            found.append(words)
    return found


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_generated_keys_are_private_and_encrypt(make_keyring, scratch):
    gpg_keys = make_keyring().gpg
    assert gpg_keys.generate() == (gpg_keys.path,)
    for path in (gpg_keys.path, *gpg_keys.path.rglob("*")):
        assert mode(path) == (0o700 if path.is_dir() else 0o600)
    assert names(gpg_keys.path.parent) == [".gnupg"]
    assert gpg_keys.decrypt(gpg_keys.encrypt(SECRET)) == SECRET
    assert gpg_keys.public_key().startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----\n")
    assert names(scratch) == []
    wait_for(lambda: not [words for words in agents() if str(scratch).encode() in words])  # they end when they notice


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_keys_made_by_root_belong_to_the_owner_of_the_home(make_keyring, tmp_path):
    keyring = make_keyring()
    for path in (tmp_path, *list(tmp_path.parents)[:-2]):
        path.chmod(0o755)
    os.chown(tmp_path / "home", 65534, 65534)
    keyring.gpg.generate()
    keyring.rsa.generate()
    assert {path.stat().st_uid for path in (tmp_path / "home").rglob("*")} == {65534}


def test_generate_refuses_to_overwrite(make_keyring):
    gpg_keys = make_keyring().gpg
    gpg_keys.generate()
    before = gpg_keys.public_key()
    with pytest.raises(CannotCreateError, match="is there already"):
        gpg_keys.generate()
    assert gpg_keys.public_key() == before


def test_generate_takes_over_after_a_run_that_was_killed(make_keyring, tmp_path):
    left = tmp_path / "home" / ".gnupg.new" / "private-keys-v1.d"
    left.mkdir(parents=True)
    (left / "half.key").write_text("half")
    gpg_keys = make_keyring().gpg
    gpg_keys.generate()
    assert not list(gpg_keys.path.rglob("half.key"))
    assert names(tmp_path / "home") == [".gnupg"]


def test_generate_that_fails_leaves_nothing(make_keyring, make_program, tmp_path):
    programs = make_program(f'case "$*" in *--gen-key*) exit 2;; esac\nexec {GPG} "$@"')
    with pytest.raises(CannotCreateError, match="gpg can't make a key pair"):
        make_keyring(programs=programs).gpg.generate()
    assert names(tmp_path / "home") == []


def test_generate_without_a_home_says_so(tmp_path):
    with pytest.raises(CannotCreateError, match="No such file"):
        Keyring(tmp_path / "nowhere", os.environ).gpg.generate()


def test_generate_makes_rsa_where_curves_are_refused(make_keyring, make_program):
    script = f"""
case "$*" in
*--gen-key*) parameters=$(cat); case $parameters in *EDDSA*) exit 2;; esac
    echo "$parameters" | sed 's/3072/2048/' | exec {GPG} "$@";;
*) exec {GPG} "$@";;
esac"""
    gpg_keys = make_keyring(programs=make_program(script)).gpg
    gpg_keys.generate()
    assert gpg_keys.decrypt(gpg_keys.encrypt(SECRET)) == SECRET


def test_path_longer_than_a_socket_takes_is_no_problem(make_keyring, scratch, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(scratch / ("t" * 90)))
    (scratch / ("t" * 90)).mkdir()
    gpg_keys = make_keyring("h" * 120).gpg
    gpg_keys.generate()
    assert gpg_keys.decrypt(gpg_keys.encrypt(SECRET)) == SECRET


def test_message_of_a_stranger_is_decrypted(make_keyring, gpg):
    gpg_keys = make_keyring().gpg
    gpg_keys.generate()
    gpg("--import", data=gpg_keys.public_key().encode())
    message = gpg("--armor", "--recipient", "clouduploader", "--encrypt", data=f"{SECRET}\n".encode())
    assert gpg_keys.decrypt(message.decode()) == SECRET
    assert gpg_keys.decrypt(message.decode().replace("\n", "\r\n")) == SECRET


def test_message_with_a_signature_is_decrypted(make_keyring, gpg):
    gpg_keys = make_keyring().gpg
    gpg_keys.generate()
    gpg("--import", data=gpg_keys.public_key().encode())
    gpg("--passphrase", "", "--quick-gen-key", "signer", "ed25519", "sign", data=b"")
    message = gpg("--armor", "-u", "signer", "-r", "clouduploader", "--sign", "--encrypt", data=SECRET.encode())
    assert gpg_keys.decrypt(message.decode()) == SECRET


def test_newest_key_is_used(make_keyring, scratch):
    gpg_keys = make_keyring().gpg
    gpg_keys.generate()
    newest = gpg_keys.public_key()
    add_key(gpg_keys, scratch, "--faked-system-time", "20200101T000000", "--passphrase", "")
    assert gpg_keys.public_key() == newest


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff\xfe" + SECRET.encode(), "not UTF-8"),
        (b"x" * (MAX_PLAIN_BYTES + 1), "damaged or too long"),
    ],
)
def test_plain_text_that_is_none_is_refused(make_keyring, gpg, no_secret, data, words):
    gpg_keys = make_keyring().gpg
    gpg_keys.generate()
    gpg("--import", data=gpg_keys.public_key().encode())
    message = gpg("--armor", "--recipient", "clouduploader", "--encrypt", data=data)
    with pytest.raises(TargetDataError, match=words) as caught:
        gpg_keys.decrypt(message.decode())
    no_secret(caught.value)


def test_message_for_somebody_else_is_refused(make_keyring):
    own, other = make_keyring().gpg, make_keyring("other").gpg
    own.generate()
    other.generate()
    with pytest.raises(TargetDataError, match="gpg says 'no secret key'"):
        own.decrypt(other.encrypt(SECRET))


def test_message_that_is_damaged_is_refused(make_keyring, no_secret):
    gpg_keys = make_keyring().gpg
    gpg_keys.generate()
    lines = gpg_keys.encrypt(SECRET).splitlines()
    middle = len(lines) // 2
    lines[middle] = lines[middle][::-1]
    for message in ("\n".join(lines), "-----BEGIN PGP MESSAGE-----", "-----BEGIN PGP MESSAGE-----\n\nAAAA\n"):
        with pytest.raises(TargetDataError, match="can't be decrypted"):
            gpg_keys.decrypt(message)


def test_message_with_a_passphrase_is_refused_without_asking(make_keyring, gpg):
    gpg_keys = make_keyring().gpg
    gpg_keys.generate()
    options = ["--pinentry-mode", "loopback", "--passphrase", "abc", "--s2k-count", "65536"]
    message = gpg("--armor", *options, "--symmetric", data=SECRET.encode())
    with pytest.raises(TargetDataError, match="can't be decrypted"):
        gpg_keys.decrypt(message.decode())


def test_key_with_a_passphrase_is_refused_without_asking(make_keyring, scratch):
    gpg_keys = make_keyring().gpg
    gpg_keys.path.mkdir(mode=0o700)
    add_key(gpg_keys, scratch, "--passphrase", "abc")
    message = gpg_keys.encrypt(SECRET)
    with pytest.raises(TargetDataError, match="can't be decrypted"):
        gpg_keys.decrypt(message)


def test_missing_keys_are_named(make_keyring):
    gpg_keys = make_keyring().gpg
    for call in (gpg_keys.public_key, lambda: gpg_keys.encrypt("x")):
        with pytest.raises(MissingFileError, match=r"there is no .*gnupg"):
            call()
    with pytest.raises(TargetDataError, match=r"it is encrypted, but there is no .*gnupg"):
        gpg_keys.decrypt("x")
    gpg_keys.path.mkdir()
    with pytest.raises(MissingFileError, match="there is no key pair in"):
        gpg_keys.public_key()


def test_gpg_that_fails_is_named(make_keyring, make_program):
    make_keyring().gpg.generate()
    programs = make_program(f'case "$*" in *crypt*) exit 2;; esac\nexec {GPG} "$@"')
    gpg_keys = make_keyring(programs=programs).gpg
    with pytest.raises(LocalIOError, match="gpg can't encrypt for the key in"):
        gpg_keys.encrypt(SECRET)
    with pytest.raises(TargetDataError, match="gpg ended with 2"):
        gpg_keys.decrypt("-----BEGIN PGP MESSAGE-----")


def test_gpg_that_hangs_is_ended(make_keyring, make_program, monkeypatch, tmp_path):
    make_keyring().gpg.generate()
    monkeypatch.setattr(gpg_module, "GPG_SECONDS", 2.0)
    monkeypatch.setattr(deadline, "GRACE_SECONDS", 0.1)
    programs = make_program(f"case $* in *--version*) exec {GPG} --version;; esac; echo $$ >{tmp_path}/pid; sleep 60")
    with pytest.raises(TransientError, match="gpg did not end within 2 s"):
        make_keyring(programs=programs).gpg.decrypt("-----BEGIN PGP MESSAGE-----\n")
    assert not Path("/proc", (tmp_path / "pid").read_text().strip(), "cwd").exists()


def test_missing_gpg_is_named(tmp_path):
    (tmp_path / ".gnupg").mkdir()
    gpg_keys = Keyring(tmp_path, {"PATH": str(tmp_path)}).gpg
    for call in (gpg_keys.public_key, lambda: gpg_keys.decrypt("x")):
        with pytest.raises(MissingProgramError, match="gpg is not installed"):
            call()


def test_secret_is_in_no_child_and_no_log(make_keyring, make_program, tmp_path, caplog):
    seen = tmp_path / "seen"
    # After gpg has done its work its agent still lives; the script's own arguments are those of gpg.
    script = f'{GPG} "$@"; code=$?; cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ >> {seen} 2>/dev/null; exit $code'
    keyring = make_keyring(programs=make_program(script), AWS_SECRET_ACCESS_KEY="AKIA-of-the-caller")
    with caplog.at_level(logging.DEBUG):
        keyring.gpg.generate()
        assert keyring.gpg.decrypt(keyring.gpg.encrypt(SECRET)) == SECRET
    data = seen.read_bytes()
    assert data.count(b"--decrypt") == 1
    assert b"gpg-agent\0--homedir" in data
    for secret in (SECRET, "AKIA-of-the-caller"):
        assert secret.encode() not in data
        assert secret not in caplog.text


VERSION = f'case "$*" in *--version*) exec {GPG} --version;; esac\n'


@pytest.mark.parametrize(
    "script",
    [
        "exit 1",
        "exit 0",
        r"printf '\377\376\n'",
        "kill -9 $$",
        VERSION + "kill -9 $$",
        VERSION + "exit 0",
        VERSION + "exit 2",
        VERSION + r"printf 'sec:u:255:22:ABC:no date:::::E\nsec:u\nfpr\n'",
        VERSION + r"printf 'x:\377\n'; printf '[GNUPG:] \377 x\n[GNUPG:] DECRYPTION_OKAY\n' >&2",
    ],
)
def test_gpg_that_does_not_work_is_an_error_of_ours(make_keyring, make_program, script):
    make_keyring().gpg.generate()
    ring = make_keyring(programs=make_program(script)).gpg
    for call in (
        lambda: ring.decrypt("-----BEGIN PGP MESSAGE-----\nx"),
        lambda: ring.encrypt("a secret"),
        ring.public_key,
        make_keyring("other", programs=Path(ring._environment["PATH"].partition(":")[0])).gpg.generate,
    ):
        with pytest.raises((CannotCreateError, LocalIOError, MissingFileError, TargetDataError)) as caught:
            call()
        assert "\n" not in caught.value.message


def test_half_a_surrogate_pair_in_a_message_is_damage(make_keyring):
    ring = make_keyring().gpg
    ring.generate()
    with pytest.raises(TargetDataError, match="can't be decrypted"):
        ring.decrypt("-----BEGIN PGP MESSAGE-----\n\ud800")
