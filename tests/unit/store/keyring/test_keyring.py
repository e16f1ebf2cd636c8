import traceback

import pytest
from samples.keys import SECRET, public_pem, rsa_pem

from clouduploader.errors import MissingFileError, TargetDataError
from clouduploader.plugin import Level


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


@pytest.mark.parametrize("kind", ["gpg", "rsa"])
def test_half_a_surrogate_pair_is_no_text_to_encrypt(make_keyring, kind):
    ring = getattr(make_keyring(), kind)
    ring.generate()
    with pytest.raises(TargetDataError, match="no character") as caught:
        ring.encrypt(f"{SECRET}\ud800")
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_text_too_long_for_the_key_of_obs_is_for_that_of_gpg(make_keyring):
    keyring = make_keyring()
    keyring.rsa.generate()
    with pytest.raises(MissingFileError, match=r"there is no .*\.gnupg"):
        keyring.encrypt("x" * 246)
    keyring.gpg.generate()
    short, long = keyring.encrypt("x" * 245), keyring.encrypt("x" * 246)
    assert keyring.rsa.is_encrypted(short)
    assert long.startswith("-----BEGIN PGP MESSAGE-----")
    assert [keyring.decrypt(short), keyring.decrypt(long)] == ["x" * 245, "x" * 246]
