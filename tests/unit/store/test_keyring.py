import base64
import logging
import os
import shutil
import stat
import subprocess
import tempfile
import traceback
from pathlib import Path

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from clouduploader.errors import (
    CannotCreateError,
    LocalIOError,
    MissingFileError,
    MissingProgramError,
    TargetDataError,
    TransientError,
)
from clouduploader.plugin import Level
from clouduploader.store.keyring import Keyring
from clouduploader.store.keyring import gpg as gpg_module
from clouduploader.store.keyring.gpg import MAX_PLAIN_BYTES
from clouduploader.util import deadline

SECRET = "Tr0ub4dor&3 für immer"
GPG = shutil.which("gpg")


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """The only place for temporary files; short enough for the sockets of gpg-agent."""
    path = Path(tempfile.mkdtemp(prefix="k", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    yield path
    shutil.rmtree(path, ignore_errors=True)  # agents that end remove their sockets meanwhile


@pytest.fixture
def make_keyring(tmp_path, scratch):
    """Return a function that gives a keyring for a home, with programs that take precedence."""

    def make(name="home", *, programs=None, **environment):
        home = tmp_path / name
        home.mkdir(parents=True, exist_ok=True)
        search = os.pathsep.join([*([str(programs)] if programs else []), os.environ["PATH"]])
        return Keyring(home, {"PATH": search, **environment})

    return make


@pytest.fixture
def make_program(tmp_path):
    """Return a function that writes a shell script called `gpg` and returns its directory."""

    def make(script):
        directory = tmp_path / "programs"
        directory.mkdir()
        (directory / "gpg").write_text(f"#!/bin/sh\n{script}\n")
        (directory / "gpg").chmod(0o755)
        return directory

    return make


@pytest.fixture
def gpg(scratch):
    """Return a function that runs gpg for a user of his own, who knows nobody."""
    home = scratch / "user"
    home.mkdir(mode=0o700)

    def run(*arguments, data):
        command = [GPG, "--homedir", home, "--batch", "--quiet", "--trust-model", "always", *arguments]
        return subprocess.run(command, input=data, capture_output=True, check=True).stdout

    yield run
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "gpg-agent"], check=True)


@pytest.fixture
def no_secret():
    """Return a function that looks for the secret in an exception and all that it came from."""

    def check(exc):
        shown = ""
        while exc is not None:
            shown += "".join(traceback.format_exception(exc, chain=False)) + f"{exc!r}{exc.args!r}{vars(exc)!r}"
            exc = exc.__cause__ or exc.__context__
        assert SECRET not in shown
        assert SECRET.split()[0] not in shown

    return check


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


def rsa_pem(key, *, form=serialization.PrivateFormat.PKCS8, passphrase=None):
    kind = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, kind)


def public_pem(key):
    public = key.public_key()
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture(scope="session")
def rsa_keys():
    """Two keys; making one takes a tenth of a second."""
    return [rsa.generate_private_key(65537, 2048) for _ in range(2)]


def obs_form(key, text):
    """As OBS's frontend does it: Base64.encode64 of OpenSSL's public_encrypt."""
    return base64.encodebytes(key.public_key().encrypt(text.encode(), padding.PKCS1v15())).decode()


# --- GPG


def test_generated_keys_are_private_and_encrypt(make_keyring, scratch):
    gpg_keys = make_keyring().gpg
    assert gpg_keys.generate() == (gpg_keys.path,)
    for path in (gpg_keys.path, *gpg_keys.path.rglob("*")):
        assert mode(path) == (0o700 if path.is_dir() else 0o600)
    assert names(gpg_keys.path.parent) == [".gnupg"]
    assert gpg_keys.decrypt(gpg_keys.encrypt(SECRET)) == SECRET
    assert gpg_keys.public_key().startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----\n")
    assert names(scratch) == []
    assert not [words for words in agents() if str(scratch).encode() in words]


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
    with pytest.raises(TransientError, match="gpg was at it for more than 2 s"):
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


# --- RSA


def test_generated_rsa_keys_are_a_pair(make_keyring, tmp_path):
    keys = make_keyring().rsa
    home = tmp_path / "home"
    assert keys.generate() == (home / "secret.pem", home / "_pubkey")
    assert mode(home / "secret.pem") == 0o600
    assert mode(home / "_pubkey") == 0o644
    assert (home / "secret.pem").read_text().startswith("-----BEGIN PRIVATE KEY-----\n")
    assert (home / "_pubkey").read_text() == keys.public_key()
    assert keys.public_key().startswith("-----BEGIN PUBLIC KEY-----\n")
    assert names(home) == ["_pubkey", "secret.pem"]
    assert keys.decrypt(keys.encrypt(SECRET)) == SECRET


def test_encrypted_value_has_the_lines_of_obs(make_keyring):
    keys = make_keyring().rsa
    keys.generate()
    lines = keys.encrypt(SECRET).splitlines(keepends=True)
    assert [len(line) for line in lines] == [61] * 5 + [45]
    assert keys.is_encrypted("".join(lines))


@pytest.mark.parametrize("form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL])
def test_value_of_obs_is_decrypted(make_keyring, rsa_keys, tmp_path, form):
    keys = make_keyring().rsa
    keys.secret_path.write_bytes(rsa_pem(rsa_keys[0], form=form))
    for value in (obs_form(rsa_keys[0], SECRET), obs_form(rsa_keys[0], SECRET).replace("\n", "")):
        assert keys.is_encrypted(value)
        assert keys.decrypt(value) == SECRET


@pytest.mark.parametrize(
    "value", ["", "secret", "ä" * 344, "A" * 343, *(base64.b64encode(b"x" * size).decode() for size in (1, 255, 257))]
)
def test_other_values_are_not_taken_for_encrypted(make_keyring, value):
    assert not make_keyring().rsa.is_encrypted(value)


def test_value_of_another_key_is_refused(make_keyring, rsa_keys, no_secret):
    keys = make_keyring().rsa
    keys.secret_path.write_bytes(rsa_pem(rsa_keys[0]))
    keys.public_path.write_bytes(public_pem(rsa_keys[0]))
    refused = 0
    for _ in range(8):
        value = obs_form(rsa_keys[1], SECRET)
        try:
            assert keys.decrypt(value) != SECRET
        except TargetDataError as exc:
            refused += "was encrypted for another key than" in exc.message
            no_secret(exc)
    assert refused >= 6  # noise that is a text by chance is rare


def test_keys_that_are_no_pair_are_named(make_keyring, rsa_keys):
    keys = make_keyring().rsa
    keys.secret_path.write_bytes(rsa_pem(rsa_keys[0]))
    keys.public_path.write_bytes(public_pem(rsa_keys[1]))
    with pytest.raises(TargetDataError, match=r"secret\.pem does not match .*_pubkey"):
        keys.decrypt(obs_form(rsa_keys[1], SECRET))


@pytest.mark.parametrize("plain", [b"\xff\xfe" + SECRET.encode(), SECRET.encode() + b"\0", b""])
def test_rsa_plain_text_that_is_none_is_refused(make_keyring, rsa_keys, no_secret, plain):
    keys = make_keyring().rsa
    keys.secret_path.write_bytes(rsa_pem(rsa_keys[0]))
    value = base64.encodebytes(rsa_keys[0].public_key().encrypt(plain, padding.PKCS1v15())).decode()
    with pytest.raises(TargetDataError, match="was encrypted for another key") as caught:
        keys.decrypt(value)
    no_secret(caught.value)


def test_secret_key_that_is_none_is_named(make_keyring, rsa_keys):
    keys = make_keyring().rsa
    value = obs_form(rsa_keys[0], SECRET)
    with pytest.raises(TargetDataError, match=r"it is encrypted, but there is no .*secret\.pem"):
        keys.decrypt(value)
    keys.secret_path.mkdir()
    with pytest.raises(TargetDataError, match=r"it is encrypted, but .*secret\.pem can't be read: Is a directory"):
        keys.decrypt(value)
    keys.secret_path.rmdir()
    for pem in (b"x", rsa_pem(rsa_keys[0], passphrase=b"abc"), rsa_pem(ec.generate_private_key(ec.SECP256R1()))):
        keys.secret_path.write_bytes(pem)
        with pytest.raises(TargetDataError, match="is no RSA key in PEM without a passphrase"):
            keys.decrypt(value)


def test_public_key_that_is_none_is_named(make_keyring, tmp_path):
    keys = make_keyring().rsa
    with pytest.raises(MissingFileError, match=r"there is no .*_pubkey"):
        keys.public_key()
    for pem in (b"x", public_pem(ec.generate_private_key(ec.SECP256R1()))):
        keys.public_path.write_bytes(pem)
        with pytest.raises(LocalIOError, match="is no RSA key in PEM"):
            keys.encrypt("x")


def test_value_too_long_for_rsa_is_refused(make_keyring, no_secret):
    keys = make_keyring().rsa
    keys.generate()
    assert keys.decrypt(keys.encrypt("x" * 245)) == "x" * 245
    with pytest.raises(TargetDataError, match=r"is 246 bytes long; .*_pubkey takes 245") as caught:
        keys.encrypt("ä" * 123)
    no_secret(caught.value)


def test_rsa_keys_are_not_overwritten(make_keyring):
    keys = make_keyring().rsa
    keys.generate()
    before = keys.secret_path.read_bytes(), keys.public_path.read_bytes()
    with pytest.raises(CannotCreateError, match="_pubkey is there already"):
        keys.generate()
    keys.secret_path.unlink()
    with pytest.raises(CannotCreateError, match="_pubkey is there already"):
        keys.generate()
    assert not keys.secret_path.exists()
    assert keys.public_path.read_bytes() == before[1]


def test_public_half_is_made_where_only_that_is_missing(make_keyring):
    keys = make_keyring().rsa
    keys.generate()
    before = keys.secret_path.read_bytes(), keys.public_path.read_bytes()
    keys.public_path.unlink()
    assert keys.generate() == (keys.public_path,)
    assert (keys.secret_path.read_bytes(), keys.public_path.read_bytes()) == before


# --- both


def levels(keyring):
    return [finding.level for finding in keyring.findings()]


def test_findings_without_keys_are_fine(make_keyring):
    assert levels(make_keyring()) == [Level.OK]


def test_findings_with_keys_are_fine(make_keyring):
    keyring = make_keyring()
    keyring.gpg.generate()
    keyring.rsa.generate()
    assert levels(keyring) == [Level.OK, Level.OK]


def test_findings_tell_what_is_wrong(make_keyring, rsa_keys):
    keyring = make_keyring()
    keyring.rsa.secret_path.write_bytes(rsa_pem(rsa_keys[0]))
    assert levels(keyring) == [Level.OK, Level.FAILURE]
    keyring.rsa.public_path.write_bytes(public_pem(rsa_keys[1]))
    *_, last = keyring.findings()
    assert "does not match" in last.message
    keyring.gpg.path.write_text("no directory")
    assert levels(keyring) == [Level.WARNING, Level.FAILURE]


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


@pytest.mark.parametrize("kind", ["gpg", "rsa"])
def test_half_a_surrogate_pair_is_no_text_to_encrypt(make_keyring, kind):
    ring = getattr(make_keyring(), kind)
    ring.generate()
    with pytest.raises(TargetDataError, match="no character") as caught:
        ring.encrypt(f"{SECRET}\ud800")
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_half_a_surrogate_pair_in_a_message_is_damage(make_keyring):
    ring = make_keyring().gpg
    ring.generate()
    with pytest.raises(TargetDataError, match="can't be decrypted"):
        ring.decrypt("-----BEGIN PGP MESSAGE-----\n\ud800")


@pytest.mark.parametrize("operation", ["encrypt", "decrypt"])
def test_machine_that_refuses_obs_padding_is_told(make_keyring, monkeypatch, operation):
    ring = make_keyring().rsa
    ring.generate()
    value = ring.encrypt("a secret")

    class Refusing:
        def __init__(self):
            raise UnsupportedAlgorithm("RSA padding is not supported by this backend")

    monkeypatch.setattr(padding, "PKCS1v15", Refusing)
    with pytest.raises((LocalIOError, TargetDataError), match=r"PKCS#1 v1\.5"):
        getattr(ring, operation)(value if operation == "decrypt" else "a secret")
