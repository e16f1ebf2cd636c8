"""Keys as files, and a secret to be encrypted for them."""

import base64

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding

SECRET = "Tr0ub4dor&3 für immer"


def rsa_pem(key, *, form=serialization.PrivateFormat.PKCS8, passphrase=None):
    kind = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, kind)


def public_pem(key):
    public = key.public_key()
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def obs_form(key, text):
    """As OBS's frontend does it: Base64.encode64 of OpenSSL's public_encrypt."""
    return base64.encodebytes(key.public_key().encrypt(text.encode(), padding.PKCS1v15())).decode()
