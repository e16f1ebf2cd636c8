import base64
import stat

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from samples.keys import SECRET, obs_form, public_pem, rsa_pem

from clouduploader.errors import (
    CannotCreateError,
    LocalIOError,
    MissingFileError,
    TargetDataError,
)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


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
